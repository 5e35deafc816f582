"""A real Slurm for the length of a test.

with slurm(nodes=2, cpus=2) as cluster:
    cluster.run("srun", "-N2", "hostname")
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scipion_cloud.cluster.private import PrivateSlurm
from scipion_cloud.cluster.slurm_conf import NodeShape


@contextmanager
def slurm(
    nodes: int = 1,
    cpus: int = 2,
    memory_gb: float = 2.0,
    gpus: int = 0,
    *,
    constrain: bool = False,
    slurmd: bool = True,
    **options: Any,
) -> Iterator[PrivateSlurm]:
    """Run a cluster of equal nodes (all of them this machine) until the block ends; nothing of it is left.

    `constrain`, and whatever else `PrivateSlurm` takes, as there. Raises SetupError if it does not start.
    """
    # munge's socket wants a short path, so not below a test's own long-named folder
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name:
        shapes = [NodeShape(cpus, memory_gb, gpus)] * nodes
        cluster = PrivateSlurm(Path(name), shapes, constrain=constrain, **options)
        try:
            cluster.start(slurmd=slurmd)
            yield cluster
        finally:
            cluster.stop(grace=1)
