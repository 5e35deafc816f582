"""Hosts on this machine: own name, network, processes and /run, joined by a bridge. Needs root on Linux.

network = Network("sc1a2b3c", "10.77.3.0/24")
network.ensure()
process = start_host(Host(network, "node-1", 11), ["sshd", "-D"], folder, env={...})
"""

import ipaddress
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.errors import SetupError

LONGEST = 11  # characters of a bridge's name: a cable's end has a number more
_TRIES = 50
_START_WITHIN = 60.0  # s
_GONE = ("Cannot find device", "No such device")  # the latter if it goes meanwhile

# a host's first process: it also buries the orphans, and when the program ends, so do all that it left
_BOOT = """\
set -e
name=$1 address=$2 gateway=$3 hosts=$4 booted=$5
shift 5
hostname "$name"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/munge /run/lock /run/sshd
mount --bind "$hosts" /etc/hosts
[ ! -e /etc/resolv.conf ] || mount --bind /dev/null /etc/resolv.conf  # nobody out there answers
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip address add "$address" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
: > "$booted"
"$@" &
wait $!
"""


@dataclass(frozen=True)
class Network:
    """A bridge of this machine, which has the first address of `subnet` (a /24, as "10.77.3.0/24")."""

    bridge: str
    subnet: str

    @property
    def address(self) -> str:
        """This machine, for the hosts."""
        return self.address_of(1)

    def address_of(self, number: int) -> str:
        """The address of host `number`, 2 to 254."""
        return str(ipaddress.ip_network(self.subnet)[number])

    def ensure(self) -> None:
        """Make the bridge unless it is there. Raises SetupError, for want of rights in the first place."""
        if not _exists(self.bridge):
            _ip("link", "add", self.bridge, "type", "bridge", but=("File exists",))
        _ip("address", "replace", f"{self.address}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")

    def remove(self) -> None:
        """Remove the bridge if it is there; hosts that still live are then alone."""
        _ip("link", "delete", self.bridge, but=_GONE)


@dataclass(frozen=True)
class Host:
    """A place in a network; `number` 2 to 254 is its own there."""

    network: Network
    name: str
    number: int

    @property
    def address(self) -> str:
        """By which all others reach it."""
        return self.network.address_of(self.number)

    @property
    def cable(self) -> str:
        """The outer end of its link."""
        return f"{self.network.bridge}-{self.number}"

    def cut(self) -> None:
        """Let nothing through any more, without a word to either side, until it is mended."""
        _ip("link", "set", self.cable, "down")

    def mend(self) -> None:
        """Let everything through again."""
        _ip("link", "set", self.cable, "up")

    def unplug(self) -> None:
        """Remove the link; the kernel does so too, some time after the host's end."""
        _ip("link", "delete", self.cable, but=_GONE)


def start_host(
    host: Host, argv: Sequence[str], folder: Path, env: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """Boot a host that runs one program, in a session of its own; what it says goes to `folder`/log.

    It lives as long as the program, and all its processes die with the one that is returned. They see the
    files of this machine, except /run and /etc/hosts. Raises SetupError if it cannot be made.
    """
    hosts, booted = folder / "hosts", folder / "booted"
    booted.unlink(missing_ok=True)
    own = f"{host.address} {host.name}\n"
    hosts.write_text(
        f"127.0.0.1 localhost\n::1 localhost\n{own}{host.network.address} {os.uname().nodename}\n"
    )
    words = [host.name, f"{host.address}/24", host.network.address, str(hosts), str(booted), *argv]
    spaces = ["--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            ["unshare", *spaces, "env", "--default-signal", "sh", "-c", _BOOT, "boot", *words],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    try:
        _await_own_network(process)
        host.unplug()  # a dead host's, if it is still there
        _ip("link", "add", host.cable, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
        _ip("link", "set", host.cable, "master", host.network.bridge, "up")
        _await(booted.exists, process)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def enter(pid: int, argv: Sequence[str]) -> list[str]:
    """The command that runs another one in the host whose process, as `start_host` returned it, this is.

    Raises SetupError if the host has ended.
    """
    try:
        first = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
    except (OSError, IndexError):
        raise SetupError(f"The host of process {pid} has ended.") from None
    return ["nsenter", "--target", first, "--net", "--uts", "--ipc", "--mount", "--pid", *argv]


def random_subnet() -> str:
    """A private /24 that no interface and no route of this machine overlaps. Raises SetupError."""
    taken = []
    for route in json.loads(_ip("-json", "route", "show", "table", "all")):
        try:
            taken.append(ipaddress.ip_network(route["dst"], strict=False))
        except ValueError:  # "default" and other words
            continue
    for _ in range(_TRIES):
        text = f"10.{random.randrange(64, 250)}.{random.randrange(256)}.0/24"  # noqa: S311 - not a secret
        subnet = ipaddress.ip_network(text)
        if not any(subnet.version == other.version and subnet.overlaps(other) for other in taken):
            return text
    raise SetupError("All private networks that were tried are in use on this machine; try again.")


def _await_own_network(process: "subprocess.Popen[bytes]") -> None:
    ours = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - follows what is no file

    def has_its_own() -> bool:
        with suppress(FileNotFoundError):
            return os.stat(f"/proc/{process.pid}/ns/net").st_ino != ours  # noqa: PTH116
        return False

    _await(has_its_own, process)


def _await(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Until a booting host is so far. Raises SetupError if it ends, or takes too long."""
    deadline = time.monotonic() + _START_WITHIN
    while not condition():
        if process.poll() is not None and not condition():
            raise SetupError("A host could not be made: this needs root, and unshare and ip.")
        if time.monotonic() > deadline:
            raise SetupError("A host was not made in time.")
        time.sleep(0.005)


def _exists(link: str) -> bool:
    return Path("/sys/class/net", link).exists()


def _ip(*argv: str, but: Sequence[str] = ()) -> str:
    """What `ip` prints; its failure is none if it says one of `but`."""
    try:
        done = subprocess.run(["ip", *argv], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise SetupError(f"ip does not work ({e}). Run: apt-get install -y iproute2") from e
    if done.returncode and not any(words in done.stderr for words in but):
        raise SetupError(f"`ip {' '.join(argv)}` failed: {done.stderr.strip()}")
    return done.stdout
