"""What a site needs before jobs can go there: our key, its host keys, our program in its area.

The key of this service opens a door there and nothing else (see `jobs.door`), so the program is brought by
the operator's own SSH access.
"""

import shlex
import subprocess
import tempfile
from pathlib import Path

from scipion_cloud.errors import ConfigError, SetupError
from scipion_cloud.jobs.bundle import write_bundle
from scipion_cloud.sites import reach
from scipion_cloud.sites.model import Site

_WITHIN = 120  # s


def make_key(site: Site) -> bool:
    """Make the key pair of this service if there is none; True if it was made. Raises SetupError."""
    key = _named(site, "key_file")
    if key.exists():
        return False
    key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "scipion-cloud", "-f", str(key)])
    return True


def offered_host_keys(site: Site) -> tuple[str, list[str]]:
    """What the host claims to be: lines for the known hosts, and their fingerprints for people to compare.

    Raises SetupError when it does not answer.
    """
    lines = _run(["ssh-keyscan", "-T", "20", "-p", str(site.port), "--", site.host])
    if not lines.strip():
        raise SetupError(f"{site.host} does not answer at port {site.port}. Are `host` and `port` right?")
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as file:
        file.write(lines)
        file.flush()
        return lines, _run(["ssh-keygen", "-l", "-f", file.name]).splitlines()


def trust(site: Site, lines: str) -> None:
    """Add host keys that a person has compared."""
    known = _named(site, "known_hosts_file")
    known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with known.open("a") as stream:
        stream.write(lines if lines.endswith("\n") else lines + "\n")


def authorized_keys_line(site: Site) -> str:
    """The line for `~/.ssh/authorized_keys` of our account there. Raises SetupError."""
    public = _run(["ssh-keygen", "-y", "-f", str(_named(site, "key_file"))]).strip()
    words = [site.python, str(reach.bundle(site)), "door", *reach.serving(site)]
    command = shlex.join(words).replace("\\", "\\\\").replace('"', '\\"')
    comment = "" if len(public.split()) > 2 else " scipion-cloud"
    return f'command="{command}",restrict {public}{comment}'


def send_program(site: Site, identity: Path | None = None) -> None:
    """Bring our program to the site with the SSH access of whoever runs this, or with the key `identity`.

    One that is in use there is replaced whole. Raises SetupError.
    """
    target = reach.bundle(site)
    folder, fresh, final = (shlex.quote(str(p)) for p in (target.parent, f"{target}.new", target))
    script = f"umask 077 && mkdir -p {folder} && cat > {fresh} && chmod 700 {fresh} && mv {fresh} {final}"
    known = _named(site, "known_hosts_file")
    options = ["-o", f"UserKnownHostsFile={reach.quoted(str(known))}", "-o", "StrictHostKeyChecking=yes"]
    options += ["-o", "IdentitiesOnly=yes", "-i", str(identity)] if identity else []
    user = ["-l", site.user] if site.user else []
    with tempfile.TemporaryDirectory() as made:
        program = Path(made) / reach.BUNDLE
        write_bundle(program)
        command = ["ssh", "-T", "-a", "-x", *options, *user, "-p", str(site.port), site.host, script]
        with program.open("rb") as stream:
            done = subprocess.run(
                command, stdin=stream, capture_output=True, text=True, timeout=_WITHIN, check=False
            )
    if done.returncode:
        raise SetupError(
            f"Our program could not be brought to {site.host}: {done.stderr.strip()[-400:]}\n"
            "This needs an SSH access of your own to that account. Else write it to a file with "
            f"`scipion-cloud site install {site.name} --to FILE`, and have it put at {target}."
        )


def _named(site: Site, key: str) -> Path:
    path: Path | None = getattr(site, key)
    if path is None:
        raise ConfigError(f"The site {site.name} has no `host` in sites.toml: nothing has to be installed.")
    return path


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN, check=False)
    except FileNotFoundError as e:
        raise SetupError(
            f"The program {command[0]} is missing. Run: apt-get install -y openssh-client"
        ) from e
    except subprocess.TimeoutExpired as e:
        raise SetupError(f"{command[0]} has not ended within {_WITHIN} s.") from e
    if done.returncode:
        raise SetupError(f"{command[0]} failed: {done.stderr.strip()[-400:]}")
    return done.stdout
