"""The way to a site: a real sshd with the door before it, and `site test` through it, also where it fails."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scipion_cloud.broker.proof import Fault, Proof
from scipion_cloud.broker.proving import Step, prove
from scipion_cloud.config import Config
from scipion_cloud.errors import ConfigError, SetupError
from scipion_cloud.sites import installing, reach, state
from scipion_cloud.sites.model import Site
from scipion_cloud.sites.reading import read_sites
from scipion_cloud.testing.servers.openssh import new_key
from scipion_cloud.testing.servers.site_host import PYTHON, Login, SiteHost, site_host


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteHost]:
    with site_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def login(host: SiteHost, tmp_path: Path) -> Login:
    return host.admit(tmp_path / "area", "--batch", "local")


@pytest.fixture
def config(host: SiteHost, login: Login, tmp_path: Path) -> Config:
    home = tmp_path / "it's a home"
    home.mkdir()
    (home / "sites.toml").write_text(
        f'[far]\nhost = "127.0.0.1"\nport = {login.port}\narea = "{login.area}"\n'
        f'key_file = "{login.key}"\nknown_hosts_file = "known hosts"\npython = "{PYTHON.split()[0]}"\n'
    )
    (home / "known hosts").write_text(f"[127.0.0.1]:{login.port} {host.server.host_key}\n")
    return Config(home=home)


@pytest.fixture
def site(config: Config) -> Iterator[Site]:
    site = read_sites(config)["far"]
    yield site
    subprocess.run([*reach.rsync_shell(site), "-O", "exit", site.host], capture_output=True, check=False)


def outcome(site: Site, config: Config) -> dict[str, Step]:
    return {step.name: step for step in prove(site, config, wait=300)}


@pytest.mark.scipion
def test_a_site_is_proven_end_to_end(site: Site, config: Config, software: Path) -> None:
    able = site.model_copy(
        update={
            "scipion": software / "scipion-env" / "bin" / "python",
            "scipion_home": software / "scipion",
            "software": ("relion",),
        }
    )
    steps = outcome(able, config)
    assert all(step.ok for step in steps.values()), steps
    assert list(steps)[:2] == ["Name", "SSH"]
    assert "RELION" in steps["Scipion"].text
    assert list((reach.area(site) / "probes").iterdir()) == []
    now = state.seen_site(able, config)
    assert now.bytes_per_second
    assert now.tested
    assert now.tested["ok"]
    lacking = able.model_copy(update={"software": ("relion", "xmipp3")})
    with pytest.raises(Fault, match=r"has no Xmipp\. Install the plugins there, or correct `software`"):
        Proof(lacking, config, wait=300).has_scipion()


def test_a_host_with_another_key_is_refused(site: Site, config: Config) -> None:
    known = config.home / "known hosts"
    known.write_text(known.read_text().replace("AAAAC3", "AAAAC4"))
    steps = outcome(site, config)
    assert list(steps) == ["Name", "SSH"]
    assert "The host key of 127.0.0.1 is not in" in steps["SSH"].text


def test_a_key_that_is_not_let_in_is_told(site: Site, config: Config, tmp_path: Path) -> None:
    other = site.model_copy(update={"key_file": tmp_path / "other"})
    assert installing.make_key(other)
    assert not installing.make_key(other)
    steps = outcome(other, config)
    assert not steps["SSH"].ok
    assert "does not accept" in steps["SSH"].text
    assert "site install far" in steps["SSH"].text


def test_without_our_program_the_remedy_is_told(site: Site, config: Config) -> None:
    reach.bundle(site).unlink()
    steps = outcome(site, config)
    assert "Our program is not at" in steps["SSH"].text
    assert not (state.seen_site(site, config).tested or {})["ok"]
    assert "site install far" in steps["SSH"].text


def test_a_flavour_that_no_node_has_is_told(config: Config) -> None:
    file = config.home / "sites.toml"
    file.write_text(
        file.read_text() + '[[far.flavours]]\nname = "huge"\ncpus = 4000\nmemory_gb = 9999\ngpus = 8\n'
    )
    steps = outcome(read_sites(config)["far"], config)
    assert steps["SSH"].ok
    assert not steps["Nodes"].ok
    assert "No node has what the flavour huge promises (4000 CPUs, 9999 GiB, 8 GPUs)" in steps["Nodes"].text


def test_what_must_be_there_before_ssh_is_called(site: Site) -> None:
    assert site.key_file
    site.key_file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        reach.rsync_shell(site)
    site.key_file.chmod(0o600)
    with pytest.raises(ConfigError, match="ssh-keyscan"):
        reach.rsync_shell(site.model_copy(update={"known_hosts_file": Path("/nowhere/known")}))
    with pytest.raises(ConfigError, match="ssh-keygen"):
        reach.rsync_shell(site.model_copy(update={"key_file": Path("/nowhere/key")}))


def test_ssh_uses_our_key_alone_and_one_short_socket(site: Site) -> None:
    words = reach.rsync_shell(site)
    options = dict(word.split("=", 1) for word in words if "=" in word)
    assert words[:3] == ["ssh", "-F", "none"]
    expected = {
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "BatchMode": "yes",
        "ForwardAgent": "no",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "2",
    }
    assert expected.items() <= options.items()
    assert len(options["ControlPath"]) < 80
    assert options == dict(word.split("=", 1) for word in reach.rsync_shell(site) if "=" in word)


def test_the_program_is_brought_by_an_operator(
    site: Site, config: Config, host: SiteHost, tmp_path: Path
) -> None:
    with host.authorized_keys.open("a") as keys:
        keys.write(f"{new_key(tmp_path / 'own')}\n")  # no door before this one
    reach.bundle(site).unlink()
    installing.send_program(site, tmp_path / "own")
    assert reach.bundle(site).stat().st_mode & 0o777 == 0o700
    done = subprocess.run(reach.about_command(site), capture_output=True, text=True, check=True)
    assert '"protocol"' in done.stdout
    assert site.key_file
    with pytest.raises(SetupError, match=r"(?s)could not be brought.*door refuses.*--to FILE"):
        installing.send_program(site, site.key_file)


def test_the_line_that_lets_us_in_opens_the_door_alone(site: Site) -> None:
    odd = site.model_copy(update={"partition": 'the "big" one'})
    line = installing.authorized_keys_line(odd)
    assert line.startswith('command="')
    assert f"{reach.BUNDLE} door --area " in line
    assert r"'partition=the \"big\" one'" in line
    assert '",restrict ssh-ed25519 AAAA' in line


def test_the_keys_of_an_unknown_host_are_shown_before_they_are_trusted(site: Site, tmp_path: Path) -> None:
    new = site.model_copy(update={"known_hosts_file": tmp_path / "new" / "known"})
    lines, fingerprints = installing.offered_host_keys(new)
    assert any("SHA256:" in fingerprint for fingerprint in fingerprints)
    installing.trust(new, lines)
    assert "BatchMode=yes" in reach.rsync_shell(new)
    done = subprocess.run(reach.about_command(new), capture_output=True, text=True, check=False)
    assert '"protocol"' in done.stdout, done.stderr
