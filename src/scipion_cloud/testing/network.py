"""Hosts of their own on this machine, for tests that need several: names, addresses, links to cut and mend.

with lan(tmp_path) as net:
    site = net.host("site", "/usr/sbin/sshd", "-D", "-e")
    site.run("hostname")
    site.cut()

Needs root, as in CI. The hosts see this machine's files; `net.address` is this machine, for them.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scipion_cloud.cluster.hosts import Host, Network, enter, random_subnet, start_host
from scipion_cloud.errors import SetupError

_FIRST = 2  # number of the first host; 1 is this machine


@dataclass(frozen=True)
class TestHost:
    """A running host. It lives as long as the program that it was started with."""

    __test__ = False  # its name is no test's
    host: Host
    process: "subprocess.Popen[bytes]" = field(repr=False)
    log: Path  # what its program says

    @property
    def name(self) -> str:
        """What `hostname` says there."""
        return self.host.name

    @property
    def address(self) -> str:
        """By which the others reach it."""
        return self.host.address

    def command(self, *argv: str) -> list[str]:
        """The command that does this on the host. Raises SetupError if it has ended."""
        return enter(self.process.pid, argv)

    def run(self, *argv: str, seconds: float = 120) -> str:
        """What a command says there. Raises CalledProcessError if it fails."""
        done = subprocess.run(
            self.command(*argv), capture_output=True, text=True, timeout=seconds, check=True
        )
        return done.stdout

    def cut(self) -> None:
        """Pull its cable: all that is sent from now on is lost, and neither side is told."""
        self.host.cut()

    def mend(self) -> None:
        """Plug the cable in again."""
        self.host.mend()

    def kill(self) -> None:
        """Pull its plug. It is gone at once, with all that ran there."""
        self.process.kill()
        self.process.wait()
        self.host.unplug()


class Lan:
    """A network with this machine in it; hosts are added."""

    def __init__(self, network: Network, folder: Path, stack: ExitStack) -> None:
        self.network = network
        self._folder = folder
        self._stack = stack
        self._hosts = 0

    @property
    def address(self) -> str:
        """This machine, for the hosts."""
        return self.network.address

    def host(self, name: str, *argv: str, env: Mapping[str, str] | None = None) -> TestHost:
        """Boot a host that runs one program (`sleep infinity` if none is given) in this environment.

        Raises SetupError if it cannot be made.
        """
        host = Host(self.network, name, _FIRST + self._hosts)
        self._hosts += 1
        folder = self._folder / f"host-{name}"
        folder.mkdir(parents=True)
        process = start_host(host, argv or ("sleep", "infinity"), folder, os.environ if env is None else env)
        running = TestHost(host, process, folder / "log")
        self._stack.callback(running.kill)
        return running


@contextmanager
def lan(folder: Path) -> Iterator[Lan]:
    """A network until the end of the block, with nothing in it yet; the hosts' logs go below `folder`."""
    if os.geteuid() != 0:
        raise SetupError("Hosts in network namespaces need root: run these tests as root, as in CI.")
    network = Network(f"sct{os.urandom(4).hex()}", random_subnet())
    with ExitStack() as stack:
        stack.callback(network.remove)
        network.ensure()
        yield Lan(network, folder, stack)
