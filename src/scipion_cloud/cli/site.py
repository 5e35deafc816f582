"""`scipion-cloud site`: the places where jobs can run, for the operators of this installation."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scipion_cloud.cli.output import moment, show_facts, show_json, show_table
from scipion_cloud.cli.storages import as_json_option, user_name

if TYPE_CHECKING:
    from scipion_cloud.config import Config
    from scipion_cloud.sites.model import Site
    from scipion_cloud.sites.now import SiteNow


@click.group()
def site() -> None:
    """The sites of sites.toml: where jobs can run. For operators, on the machine of the service."""


@site.command(name="list")
@as_json_option
def list_sites(as_json: bool) -> None:
    """List the sites, as they were seen last."""
    from scipion_cloud.sites.state import seen_sites

    found = seen_sites(_config())
    if as_json:
        show_json([_values(now) for now in found])
        return
    rows = [
        [n.name, n.site.label, n.site.kind, n.site.batch, n.state, _cpus(n), n.running, n.queued]
        for n in found
    ]
    show_table(["name", "title", "kind", "batch", "state", "CPUs used", "running", "queued"], rows, "None.")


@site.command()
@click.argument("name")
@as_json_option
def show(name: str, as_json: bool) -> None:
    """Show what is known of a site."""
    from scipion_cloud.sites.state import seen_site

    now = seen_site(_site(name), _config())
    if as_json:
        show_json(_values(now))
        return
    there, tested = now.site, now.tested or {}
    show_facts(
        {
            "name": now.name,
            "title": there.title,
            "kind": there.kind,
            "batch system": there.batch,
            "host": there.host,
            "area": there.area,
            "state": now.state,
            "drained": now.drained,
            "unreachable": now.unreachable,
            "seen": moment(now.seen.isoformat()) if now.seen else "never",
            "CPUs used": _cpus(now),
            "jobs": f"{now.running} running, {now.queued} queued",
            "software": ", ".join(there.software),
            "flavours": ", ".join(f"{f.name} ({f.cpus} CPUs, {f.memory_gb:.0f} GiB)" for f in now.flavours),
            "link": f"{now.bytes_per_second / 1e6:.0f} MB/s" if now.bytes_per_second else "",
            "tested": f"{moment(tested['when'])}: {'works' if tested['ok'] else 'fails'}"
            if tested
            else "never",
        }
    )
    click.echo()
    nodes = [
        [n.name, n.state, f"{n.cpus_used} of {n.cpus}", f"{n.memory_gb:.0f} GiB", n.gpus] for n in now.nodes
    ]
    show_table(["node", "state", "CPUs used", "memory", "GPUs"], nodes, "No nodes have been seen yet.")


@site.command()
@click.argument("name")
@click.option("--wait", default=900.0, show_default=True, help="Seconds for each of the small jobs.")
@as_json_option
@click.pass_context
def test(context: click.Context, name: str, wait: float, as_json: bool) -> None:
    """Prove a site end to end: SSH, batch system, files, a job, MPI, Scipion. Exit code 1 if it fails."""
    from scipion_cloud.broker.proving import prove

    steps = []
    for step in prove(_site(name), _config(), wait):
        steps.append(step)
        if not as_json:
            mark = click.style("✓", fg="green") if step.ok else click.style("✗", fg="red", bold=True)
            click.echo(f"{mark} {step.name.ljust(13)} {step.text}")
    ok = all(step.ok for step in steps)
    if as_json:
        show_json({"site": name, "ok": ok, "steps": [asdict(step) for step in steps]})
    elif ok:
        click.secho(f"{name} works.", fg="green")
    context.exit(0 if ok else 1)


@site.command()
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path), help="Only write our program to this file.")
@click.option(
    "--identity",
    "-i",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Your own private key for that account; else what your SSH uses.",
)
def install(name: str, to: Path | None, identity: Path | None) -> None:
    """Bring our program to a site with your own SSH access, and print the line that lets this service in.

    Makes the key of this service if there is none, and shows the fingerprints of an unknown host.
    """
    from scipion_cloud.jobs.bundle import write_bundle
    from scipion_cloud.sites import installing, reach

    there = _site(name)
    if to:
        write_bundle(to)
        click.echo(f"Wrote {to}. It belongs at {reach.bundle(there)}.")
        return
    if installing.make_key(there):
        click.echo(f"Made the key of this service: {there.key_file}")
    if there.known_hosts_file and not there.known_hosts_file.exists():
        lines, fingerprints = installing.offered_host_keys(there)
        click.echo(f"{there.host} is not known yet. It says that its keys are:")
        for fingerprint in fingerprints:
            click.echo(f"  {fingerprint}")
        click.confirm("Are they what its operators publish?", abort=True)
        installing.trust(there, lines)
    click.echo(f"Add this line to ~/.ssh/authorized_keys of {there.user or 'the account'} at {there.host}:\n")
    click.echo(installing.authorized_keys_line(there) + "\n")
    installing.send_program(there, identity)
    click.echo(f"Our program is at {reach.bundle(there)}. Now: scipion-cloud site test {name}")


@site.command()
@click.argument("name")
@click.option("--reason", default="", help="Why, for people who would send jobs there.")
def drain(name: str, reason: str) -> None:
    """Let a site take no new jobs. What is there goes on."""
    from scipion_cloud.sites import state

    state.drain(_config(), _site(name), reason, user_name())
    click.echo(f"{name} takes no new jobs. `scipion-cloud site resume {name}` ends this.")


@site.command()
@click.argument("name")
def resume(name: str) -> None:
    """Let a site take jobs again."""
    from scipion_cloud.sites import state

    state.resume(_config(), _site(name))
    click.echo(f"{name} takes jobs.")


@site.command()
def example() -> None:
    """Print an annotated sites.toml."""
    from scipion_cloud.sites.reading import example as text

    click.echo(text(), nl=False)


def _config() -> "Config":
    from scipion_cloud.config import read_config

    return read_config()


def _site(name: str) -> "Site":
    from scipion_cloud.sites.reading import read_sites

    return read_sites(_config())[name]


def _cpus(now: "SiteNow") -> str:
    return f"{now.cpus_used} of {now.cpus}" if now.nodes else ""


def _values(now: "SiteNow") -> dict[str, Any]:
    """A site for JSON; the API's `/sites` says the same."""
    from scipion_cloud.sites.telling import told

    return told(now)
