"""Nodes that are hosts of their own on this machine: their own name, network, munge and slurmd. Needs root.

They come to the cluster as a cloud's machines would: they know the head's address and the key, no more.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scipion_cloud.cluster.hosts import Host, Network, start_host
from scipion_cloud.cluster.machines import Machines, environment, later
from scipion_cloud.errors import SetupError

_FIRST = 10  # the number of node 1 in the network is one more

# munge's folder is where slurm.conf says, and there lies this node's own, with a copy of the key
_NODE = """\
set -e
own=$1 there=$2
shift 2
install -m 600 "$there/key" "$own/munge.key"
mount --bind /run/munge "$there"
ln -s socket /run/munge/munge.socket.2
munged --force --socket="$there/socket" --key-file="$own/munge.key" --pid-file=/run/munge/pid \
    --log-file="$own/munge.log" --seed-file="$own/munge.seed" --num-threads=2
exec "$@"
"""


class NamespaceNodes(Machines):
    """Each node is a host in network namespaces of `network`, which finds slurmctld at its first address.

    `conf` is the cluster's slurm.conf, beside which its folders `munge` and `spool` lie. A name is `prefix`
    and a number.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        conf: Path,
        network: Network,
        capacity: int | None = None,
        gpu_files: Sequence[Path] = (),
    ) -> None:
        super().__init__(folder, prefix, capacity, gpu_files)
        self.conf = conf
        self.network = network

    def host(self, name: str) -> Host:
        """Where a node is in the network."""
        return Host(self.network, name, _FIRST + int(name.removeprefix(self.prefix)))

    def prepare(self) -> str:
        """Make the bridge; its address is the head's."""
        self.network.ensure()
        return self.network.address

    def clear(self) -> None:
        """Remove the nodes and the bridge."""
        super().clear()
        self.network.remove()

    def place(self, name: str) -> str:
        """The node's own address."""
        return f"NodeAddr={self.host(name).address}"

    def _start(self, name: str, folder: Path, mark: str) -> "subprocess.Popen[bytes]":
        self.network.ensure()
        head = f"{self.network.address}:{self._port()}"
        slurmd = ["slurmd", "-D", "-b", "-N", name, "--conf-server", head]
        argv = ["sh", "-c", _NODE, "node", str(folder), str(self.conf.parent / "munge"), *later(slurmd)]
        return start_host(self.host(name), argv, folder, environment(mark))

    def _cleared(self, name: str) -> None:
        self.host(name).unplug()
        super()._cleared(name)
        shutil.rmtree(self.conf.parent / "spool" / name, ignore_errors=True)

    def _port(self) -> int:
        """slurmctld's."""
        found = re.search(r"^SlurmctldPort=(\d+)$", self.conf.read_text(), re.MULTILINE)
        if found is None:
            raise SetupError(f"{self.conf} does not name slurmctld's port.")
        return int(found[1])
