"""The contract of `NodeProvider` as tests. A provider passes it by subclassing and giving an `arena`:

class TestMyCloud(NodeProviderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def arena(cls): ...
"""

import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scipion_cloud.cluster.control import Control
from scipion_cloud.cluster.elastic import STAND_INS, Elastic, ElasticCluster
from scipion_cloud.cluster.machines import Machines
from scipion_cloud.cluster.private import PrivateSlurm
from scipion_cloud.cluster.provider import NoCapacity, NodeProvider, NodeState, ProvidedNode
from scipion_cloud.errors import ScipionCloudError
from scipion_cloud.jobs import processes

WITHIN = 240.0  # s

CREATE = """
import pickle, sys
provider, name = pickle.load(sys.stdin.buffer)
print("ready", flush=True)
provider.create(name)
print("done", flush=True)
"""


@dataclass(frozen=True)
class Arena:
    """A provider, and the cluster that its nodes come to.

    `make(quota)`: the provider anew, as another process has it; `names`: three nodes that it can make, with
    two GPUs each; `kill`: end a node from outside, as when its power fails.
    """

    make: Callable[[int | None], NodeProvider]
    names: tuple[str, ...]
    kill: Callable[[str], None]
    slurm: PrivateSlurm

    @property
    def control(self) -> Control:
        """The cluster's nodes."""
        return Control(self.slurm.conf)


@contextmanager
def elastic_slurm(
    elastic: Elastic, folder: Path | None = None
) -> Iterator[tuple[ElasticCluster, PrivateSlurm]]:
    """A Slurm with elastic nodes, all of them off and nobody there to make them, until the end of the block.

    Nothing is left of it and of its nodes then. In `folder`, if one is given.
    """
    # munge's socket wants a short path, so not below a test's own long-named folder
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name:
        cluster = ElasticCluster(folder or Path(name), elastic)
        head = PrivateSlurm(cluster.folder, [], interactive_cpus=0, constrain=False, **cluster.for_slurm())
        try:
            head.start()
            yield cluster, head
        finally:
            head.stop()
            cluster.provider().clear()


@contextmanager
def machines_arena(provider: str) -> Iterator[Arena]:
    """An arena for the providers whose nodes are processes of this machine."""
    size = Elastic(provider, nodes=3, cpus=2, memory_gb=0.5, gpus=2, options={"gpus": STAND_INS})
    with elastic_slurm(size) as (cluster, head):

        def make(quota: int | None) -> Machines:
            machines = cluster.provider()
            assert isinstance(machines, Machines)
            machines.capacity = quota
            return machines

        yield Arena(make, cluster.names, lambda name: kill_machine(make(None), name), head)


def kill_machine(machines: Machines, name: str) -> None:
    """End a node's first process, as when the power of its machine fails."""
    note = machines.note(name)
    assert note is not None, f"{name} has no process"
    assert processes.send(note.pid, note.start, 9), f"{name} was not alive"


def wait_for(test: Callable[[], bool], what: str, seconds: float = WITHIN) -> None:
    """Wait until this is so."""
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, f"still waiting: {what}"
        time.sleep(0.05)


def is_up(provider: NodeProvider, name: str) -> bool:
    """True if the provider says so."""
    node = provider.nodes().get(name)
    assert node is None or node.state is not NodeState.FAILED, node
    return node is not None and node.state is NodeState.UP


class NodeProviderContract:
    """What every provider does."""

    @pytest.fixture(scope="class")
    @classmethod
    def arena(cls) -> Iterator[Arena]:
        """What is tested; its nodes are nobody else's."""
        raise NotImplementedError

    @pytest.fixture
    def provider(self, arena: Arena) -> Iterator[NodeProvider]:
        """The provider without any node."""
        provider = arena.make(None)
        yield provider
        provider.destroy(list(provider.nodes()))
        assert provider.nodes() == {}

    def test_a_node_comes_and_goes(self, provider: NodeProvider, arena: Arena) -> None:
        name = arena.names[0]
        assert provider.nodes() == {}
        before = datetime.now(UTC)
        provider.create(name)
        node = provider.nodes()[name]
        assert node.name == name
        assert node.state in (NodeState.STARTING, NodeState.UP)
        wait_for(lambda: is_up(provider, name), "the node is up")
        provider.create(name)
        again = provider.nodes()
        assert list(again) == [name]
        assert is_up(provider, name)
        since = again[name].since
        assert since is None or abs((since - before).total_seconds()) < WITHIN
        provider.destroy([name])
        assert provider.nodes() == {}
        provider.destroy([name, arena.names[1]])  # what is not there is no error

    def test_several_at_once(self, provider: NodeProvider, arena: Arena) -> None:
        names = arena.names[:2]
        with ThreadPoolExecutor() as threads:
            list(threads.map(provider.create, names))
        assert set(provider.nodes()) == set(names)
        for name in names:
            wait_for(lambda name=name: is_up(provider, name), f"{name} is up")  # type: ignore[misc]
        provider.destroy(names[1:])
        assert set(provider.nodes()) == {names[0]}

    def test_others_see_the_same(self, provider: NodeProvider, arena: Arena) -> None:
        name = arena.names[0]
        provider.create(name)
        other = arena.make(None)
        wait_for(lambda: is_up(other, name), "the other one sees the node")
        other.create(name)
        assert provider.nodes() == other.nodes()
        other.destroy([name])
        assert provider.nodes() == {}

    def test_a_dead_node_is_told_and_cleared_away(self, provider: NodeProvider, arena: Arena) -> None:
        name = arena.names[0]
        provider.create(name)
        wait_for(lambda: is_up(provider, name), "the node is up")
        arena.kill(name)
        wait_for(lambda: provider.nodes()[name].state is NodeState.FAILED, "its death is noticed")
        assert provider.nodes()[name].message
        provider.destroy([name])
        assert provider.nodes() == {}
        provider.create(name)
        wait_for(lambda: is_up(provider, name), "it is there again")

    @pytest.mark.usefixtures("provider")
    def test_capacity(self, arena: Arena) -> None:
        limited = arena.make(1)
        first, second, _ = arena.names
        limited.create(first)
        with pytest.raises(NoCapacity, match="1"):
            limited.create(second)
        limited.create(first)  # which is there
        assert set(limited.nodes()) == {first}
        limited.destroy([first])
        limited.create(second)
        assert set(limited.nodes()) == {second}

    @pytest.mark.parametrize("delay", [0.0, 0.02, 0.2])
    def test_killed_while_it_makes_a_node(self, provider: NodeProvider, arena: Arena, delay: float) -> None:
        name = arena.names[0]
        maker = subprocess.Popen(
            [sys.executable, "-c", CREATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert maker.stdin is not None
        assert maker.stdout is not None
        with maker.stdin as stdin:
            stdin.write(pickle.dumps((provider, name)))
        assert maker.stdout.readline() == b"ready\n"
        time.sleep(delay)
        maker.kill()
        maker.wait()
        maker.stdout.close()
        assert set(provider.nodes()) <= {name}
        provider.create(name)
        wait_for(lambda: is_up(provider, name), "it is finished by another one")

    def test_a_node_works_and_takes_all_with_it(
        self, provider: NodeProvider, arena: Arena, tmp_path: Path
    ) -> None:
        name, control = arena.names[2], arena.control  # one that Slurm has never seen
        control.resume([name])
        wait_for(lambda: control.nodes()[name].wanted, "Slurm wants the node")
        provider.create(name)
        wait_for(lambda: control.nodes()[name].on, "the node has come to the cluster")
        said = arena.slurm.run("srun", "-w", name, "printenv", "SLURMD_NODENAME", within=WITHIN)
        assert said.split() == [name]
        self._two_jobs_have_different_gpus(arena, name, tmp_path)
        ticking = "while :; do echo >> {}; sleep 0.02; done"
        marks = [tmp_path / "job", tmp_path / "daemon"]
        script = f"setsid sh -c '{ticking.format(marks[1])}' & {ticking.format(marks[0])}"
        arena.slurm.run("sbatch", "-w", name, "--no-requeue", "-o", "/dev/null", "--wrap", script)
        wait_for(lambda: all(mark.exists() for mark in marks), "the job runs")
        provider.destroy([name])
        sizes = [mark.stat().st_size for mark in marks]
        time.sleep(0.5)
        assert [mark.stat().st_size for mark in marks] == sizes
        control.fail([name], "the test is over")
        control.switch_off([name])

    def _two_jobs_have_different_gpus(self, arena: Arena, node: str, folder: Path) -> None:
        """Each ends when it has seen the other; a step of a job has what the job has."""
        gpus = arena.make(None).gpus(arena.names, 2)
        assert len({gpu.file for ours in gpus.values() for gpu in ours}) == 6
        script, own, other = folder / "gpus.sh", *(f"{folder}/gpu-{number}" for number in ("$1", "$2"))
        script.write_text(
            f"#!/bin/sh\nstep=$(srun -n1 printenv CUDA_VISIBLE_DEVICES)\n"
            f"echo $CUDA_VISIBLE_DEVICES $step > {own}\nuntil [ -e {other} ]; do sleep 0.05; done\n"
        )
        for pair in (("one", "two"), ("two", "one")):
            asked = ["-w", node, "--gres=gpu:1", "--mem=100", "-o", "/dev/null"]
            arena.slurm.run("sbatch", *asked, str(script), *pair)
        wait_for(lambda: arena.slurm.run("squeue", "-h") == "", "both jobs have run")
        given = sorted((folder / f"gpu-{number}").read_text() for number in ("one", "two"))
        assert given == [f"{gpu.number} {gpu.number}\n" for gpu in gpus[node]]


class Unlucky(NodeProvider):
    """A provider whose next `failures` creations fail with `error`: a fault injector around a real one."""

    def __init__(self, inner: NodeProvider, failures: int, error: ScipionCloudError) -> None:
        self.inner = inner
        self.failures = failures
        self.error = error

    def create(self, name: str) -> None:
        """Fail, or create."""
        if self.failures > 0:
            self.failures -= 1
            raise self.error
        self.inner.create(name)

    def destroy(self, names: Sequence[str]) -> None:
        """Destroy."""
        self.inner.destroy(names)

    def nodes(self) -> Mapping[str, ProvidedNode]:
        """What there really is."""
        return self.inner.nodes()
