"""Nodes that are slurmds of this machine, for any user: to try elastic nodes out, and for tests."""

import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scipion_cloud.cluster.machines import Machines, environment, later


class ProcessNodes(Machines):
    """Each node is one `slurmd -N name`; `ports` are theirs, by name.

    `conf` is the cluster's slurm.conf, beside which its spool folder lies. The nodes carry no SLURM_CONF, so
    that the cluster's own programs can be stopped and started while nodes and jobs go on.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        conf: Path,
        ports: dict[str, int],
        capacity: int | None = None,
        gpu_files: Sequence[Path] = (),
    ) -> None:
        super().__init__(folder, prefix, capacity, gpu_files)
        self.conf = conf
        self.ports = ports

    def place(self, name: str) -> str:
        """This machine, at the node's own port."""
        host = socket.gethostname().partition(".")[0]
        return f"NodeAddr=127.0.0.1 NodeHostname={host} Port={self.ports[name]}"

    def _start(self, name: str, folder: Path, mark: str) -> "subprocess.Popen[bytes]":
        # -b: the machine was booted just now
        command = ["slurmd", "-D", "-b", "-N", name, "-f", str(self.conf)]
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(
                ["env", "--default-signal", *later(command)],
                env=environment(mark),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )

    def _cleared(self, name: str) -> None:
        super()._cleared(name)
        shutil.rmtree(self.conf.parent / "spool" / name, ignore_errors=True)
