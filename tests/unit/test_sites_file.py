"""`sites.toml`: what it may say, and what is told when it says something else."""

from pathlib import Path

import pytest

from scipion_cloud.config import Config
from scipion_cloud.errors import ConfigError, NotFound
from scipion_cloud.sites.model import Batch, SiteKind
from scipion_cloud.sites.reading import example, parse_sites, read_sites

SSH = 'host = "h"\narea = "/x"\nkey_file = "k"\nknown_hosts_file = "n"\n'


def parse(text: str) -> object:
    return parse_sites(text, Path("/home/sites.toml"), Path("/home"))


def test_without_a_file_there_is_one_site(tmp_path: Path) -> None:
    sites = read_sites(Config(home=tmp_path))
    assert [site.name for site in sites] == ["here"]
    assert sites.home.kind is SiteKind.HOME
    assert sites.home.batch is Batch.LOCAL
    assert sites[""] is sites["here"] is sites.home


def test_the_example_is_a_whole_one() -> None:
    sites = parse_sites(example(), Path("/home/sites.toml"), Path("/home"))
    hpc = sites["hpc"]
    assert hpc.key_file == Path("/home/sites/key")
    assert [flavour.gpus for flavour in hpc.flavours] == [0, 4]
    assert hpc.has("relion")
    assert hpc.has("pwem")
    assert not hpc.has("cryosparc2")
    assert sites.home.has("cryosparc2")


def test_little_is_enough() -> None:
    sites = parse_sites('[near]\narea = "/data/sc"\n', Path("/home/sites.toml"), Path("/home"))
    assert [site.name for site in sites] == ["here", "near"]
    assert (sites["near"].label, sites["near"].host, sites["near"].flavours) == ("near", "", ())


def test_a_home_can_have_another_name() -> None:
    sites = parse_sites('[main]\nkind = "home"\nbatch = "slurm"\n', Path("/x/sites.toml"), Path("/x"))
    assert sites.home.name == "main"
    assert sites["here"] is sites["main"] is sites.home
    with pytest.raises(NotFound, match=r"no site 'hpc'.*there are: main"):
        sites["hpc"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[a", "is not valid TOML: Expected"),
        ("[a]\n[a]\n", r"two sites are called 'a' \(at line 2.*Give each its own name"),
        ("port = 1", "port: unknown key. A site is a table"),
        ("[Big]", "'Big' is not a name: write a lower-case letter"),
        ("[a]\nname = 'b'", "called like its table"),
        ("[automatic]\narea = '/x'", "automatic: this name is taken"),
        ("[automatic]\nkind = 'home'", "automatic: this name is taken"),
        ("[here]\narea = '/x'", "here: this name is taken"),
        ("[local]\narea = '/x'", "local: this name is taken"),
        ("[home]\narea = '/x'", "home: this name is taken"),
        ("[a]\narea = '/x'\nscipion = '/my scipion/python'", "scipion: Scipion does not quote .* ' ' in it"),
        (
            "[a]\narea = '/x'\nscipion_home = \"/o'home\"",
            'scipion_home: Scipion does not quote .* "\'" in it',
        ),
        ("[a]\narea = '/x'\ntitel = 'A'", "titel: unknown key; known are title, kind"),
        ("[a]\narea = '/x'\ntitle = 'T'\n[b]\narea = '/x'\ntitle = 'T'", "two sites have the title 'T'"),
        ("[a]\nkind = 'home'\n[b]\nkind = 'home'", "a and b are of kind 'home'"),
        ("[a]\nkind = 'home'\nhost = 'x'", "host: the home site is reached without it"),
        ("[a]\nbatch = 'pbs'\narea = '/x'", "batch: it should be 'local', 'slurm' or 'sge', not 'pbs'"),
        ("[a]\nhost = 'h'", "area: name the folder there"),
        ("[a]\narea = 'x'", "area: write an absolute path, not 'x'"),
        ("[a]\nhost = 'h'\narea = '/x'\nkey_file = 'k'", "known_hosts_file: a site with a host needs one"),
        ("[a]\nhost = 'h'\narea = '/x'\nknown_hosts_file = 'k'", "key_file: a site with a host needs one"),
        (f"[a]\nport = 70000\n{SSH}", "port: it should be less than or equal to 65535, not 70000"),
        (f"[a]\nuser = '-oProxyCommand=x'\n{SSH}", "user: '-oProxyCommand=x' is not the name of an account"),
        ("[a]\narea = '/x'\nhost = '-x'", "host: '-x' is not the name or the address"),
        ("[a]\narea = '/x'\nmpi = 'mpirun'", "mpi: write a command with {n} for the number"),
        ("[a]\narea = '/x'\nmpi = '{n}'", "mpi: write a command"),
        ("[a]\narea = '/x'\nenv = {'A B' = 'x'}", "env: 'A B' cannot be the name of a variable"),
        ("[a]\narea = '/x'\nmax_gb = nan", "max_gb: it should be a finite number"),
        (
            "[a]\narea = '/x'\nflavours = [{name = 'f', cpus = 0, memory_gb = 1}]",
            r"flavours\.f\.cpus: it should",
        ),
        (
            "[a]\narea = '/x'\nflavours = [{name = 'f', cpus = 1}]",
            r"flavours\.f\.memory_gb: this key is missing",
        ),
        (
            "[a]\narea = '/x'\nflavours = [{name = 'f', cpus = 1, memory_gb = 1, price = 1}]",
            r"flavours\.f\.price: unknown key; known are name, cpus, memory_gb, gpus, disk_gb, price",
        ),
        ("[a]\narea = '/x'\nflavours = [{name = 'f', cpus = 1, memory_gb = -2}]", "greater than 0, not -2"),
        (
            "[a]\narea = '/x'\nflavours = [{name = 'f', cpus = 1, memory_gb = 1}, {name = 'f', cpus = 2, "
            "memory_gb = 1}]",
            "two are called 'f'",
        ),
        (
            "[a]\nkind = 'home'\nelastic = {provider = 'processes', max_nodes = 2}",
            "name at least one flavour",
        ),
        ("currency = 3", "currency: write a short text"),
    ],
)
def test_what_is_wrong_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        parse(text)
    assert "/home/sites.toml" in str(raised.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"sites\.toml cannot be read"):
        read_sites(Config(home=tmp_path))
