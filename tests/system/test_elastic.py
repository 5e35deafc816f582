"""Elastic nodes with a real Slurm: they come with jobs, go with them, fail, die, and are found again."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from scipion_cloud.cluster.control import Control
from scipion_cloud.cluster.elastic import Elastic, ElasticCluster
from scipion_cloud.cluster.history import FILE, read_history
from scipion_cloud.cluster.hostlist import expand
from scipion_cloud.cluster.machines import Machines
from scipion_cloud.cluster.nodes import Nodes
from scipion_cloud.cluster.private import PrivateSlurm
from scipion_cloud.cluster.provider import NodeProvider
from scipion_cloud.config import Config
from scipion_cloud.controller.background import Background
from scipion_cloud.controller.nodes import ElasticNodes
from scipion_cloud.errors import JobError, JobRefused, ScipionCloudError
from scipion_cloud.jobs.batch import BatchBackend
from scipion_cloud.sites.reading import read_sites
from scipion_cloud.testing.job_backend import sh
from scipion_cloud.testing.node_provider import Unlucky, elastic_slurm, kill_machine, wait_for

NODES = 4
Cluster = tuple[ElasticCluster, PrivateSlurm]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Nodes of one CPU: a job fills one."""
    with elastic_slurm(Elastic("processes", NODES, cpus=1, memory_gb=0.5, idle_seconds=2)) as both:
        yield both


@contextmanager
def controller(cluster: ElasticCluster, provider: NodeProvider | None = None) -> Iterator[Nodes]:
    """A controller that looks all the time, until the end of the block."""
    nodes = Nodes(cluster, Background(at_once=8), provider, pause=timedelta(seconds=4))
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(0.2):
            with suppress(JobError):  # Slurm is slow to answer on a slow machine
                nodes.reconcile()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield nodes
    finally:
        stopped.set()
        thread.join()


def machines(cluster: ElasticCluster, quota: int | None = None) -> Machines:
    provider = cluster.provider()
    assert isinstance(provider, Machines)
    provider.capacity = quota
    return provider


def submit(slurm: PrivateSlurm, folder: Path, name: str, script: str, *options: str) -> str:
    """Queue a job that notes when it begins and ends; its number. What it says is in NAME.out."""
    text = f"#!/bin/sh\necho began $SLURMD_NODENAME $(hostname) >> {folder}/{name}\n{script}\n"
    (folder / f"{name}.sh").write_text(text + f"echo ended >> {folder}/{name}\n")
    more = [f"--job-name={name}", f"--output={folder}/{name}.out", "--mem=50", *options]
    return slurm.run("sbatch", "--parsable", *more, str(folder / f"{name}.sh")).strip()


def words(folder: Path, name: str) -> list[str]:
    """What a job has noted: one word for each line."""
    file = folder / name
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


def places(folder: Path, name: str) -> list[list[str]]:
    """Node and host of each time that a job began."""
    lines = (folder / name).read_text().splitlines()
    return [line.split()[1:] for line in lines if line.startswith("began")]


def wait_ended(folder: Path, *names: str) -> None:
    wait_for(lambda: all("ended" in words(folder, name) for name in names), f"{names} end")


def wait_gone(cluster: ElasticCluster) -> None:
    wait_for(lambda: not cluster.provider().nodes(), "all nodes are gone")


def told(cluster: ElasticCluster) -> list[str]:
    return [event.text for event in read_history(cluster.folder / FILE).events]


@pytest.mark.parametrize("provider", ["processes", "namespaces"])
def test_from_nothing_to_running_jobs_and_back(provider: str, tmp_path: Path) -> None:
    size = Elastic(provider, 3, cpus=1, memory_gb=0.5, idle_seconds=2, price_per_hour=0.5)
    with elastic_slurm(size) as (cluster, slurm), controller(cluster):
        names = [submit(slurm, tmp_path, f"job{number}", "sleep 2") and f"job{number}" for number in range(3)]
        wait_ended(tmp_path, *names)
        wait_gone(cluster)
        wait_for(lambda: all(n.off for n in Control(slurm.conf).nodes().values()), "Slurm knows it")
        assert [words(tmp_path, name) for name in names] == [["began", "ended"]] * 3
        ran_on = [places(tmp_path, name)[0] for name in names]
        assert sorted(node for node, _ in ran_on) == sorted(cluster.names)
        if provider == "namespaces":
            assert [host for _, host in ran_on] == [node for node, _ in ran_on]
        wait_for(lambda: read_history(cluster.folder / FILE).timeline[-1].on == 0, "it is written down")
        now = read_history(cluster.folder / FILE)
        assert max(point.on for point in now.timeline) == 3
        assert max(point.busy for point in now.timeline) == 3
        assert 0 < now.hours_busy < now.hours_used
        assert now.hours_saved > 0
        assert now.cost == 0.5 * now.hours_used
        assert {line.name for line in now.nodes} == set(cluster.names)


MPI = """
import ctypes, pathlib, socket, sys
mpi = ctypes.CDLL("libmpi.so.40", mode=ctypes.RTLD_GLOBAL)
constant = lambda name: ctypes.byref(ctypes.c_char.in_dll(mpi, f"ompi_mpi_{name}"))
mpi.MPI_Init(None, None)
mine, total = ctypes.c_int(), ctypes.c_int()
mpi.MPI_Comm_rank(constant("comm_world"), ctypes.byref(mine))
values = ctypes.byref(mine), ctypes.byref(total), 1, constant("int"), constant("op_sum")
mpi.MPI_Allreduce(*values, constant("comm_world"))
said = pathlib.Path(f"{sys.argv[1]}-{mine.value}")  # of its own: on one stream they could mix
said.write_text(f"{mine.value} {total.value} {socket.gethostname()}")
mpi.MPI_Finalize()
"""


def test_mpi_over_two_nodes_that_came_for_it(tmp_path: Path) -> None:
    (tmp_path / "sum.py").write_text(MPI)
    program = f"{sys.executable} {tmp_path}/sum.py"
    as_root = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1\n"
    script = f"{as_root}mpirun -np 4 {program} {tmp_path}/mpirun\nsrun --mpi=pmix {program} {tmp_path}/srun"
    with (
        elastic_slurm(Elastic("namespaces", 2, cpus=2, memory_gb=0.5)) as (cluster, slurm),
        controller(cluster),
    ):
        submit(slurm, tmp_path, "job", script, "--nodes=2", "--ntasks-per-node=2")
        wait_ended(tmp_path, "job")
        output = (tmp_path / "job.out").read_text()
        for way in ("mpirun", "srun"):
            lines = sorted(file.read_text().split() for file in tmp_path.glob(f"{way}-*"))
            assert [rank for rank, _, _ in lines] == ["0", "1", "2", "3"], output
            assert {total for _, total, _ in lines} == {"6"}, way  # each has heard from all
            assert sorted(host for _, _, host in lines) == sorted(cluster.names * 2), way


def test_a_quota_moves_jobs_on(cluster: Cluster, tmp_path: Path) -> None:
    elastic, slurm = cluster
    with controller(elastic, machines(elastic, quota=2)):
        names = [f"job{number}" for number in range(4)]
        for name in names:
            submit(slurm, tmp_path, name, "sleep 1", "--no-requeue")  # may not run twice, but must run once
        wait_ended(tmp_path, *names)
        assert [words(tmp_path, name) for name in names] == [["began", "ended"]] * 4
        assert len({places(tmp_path, name)[0][0] for name in names}) <= NODES
        assert any("The quota of 2 nodes is used up; its jobs go to other nodes" in t for t in told(elastic))
        wait_for(
            lambda: not any(node.down for node in Control(slurm.conf).nodes().values()), "all are forgiven"
        )
        wait_gone(elastic)


def test_a_creation_that_fails_moves_the_job_on(cluster: Cluster, tmp_path: Path) -> None:
    elastic, slurm = cluster
    unlucky = Unlucky(machines(elastic), 1, ScipionCloudError("The image is gone."))
    with controller(elastic, unlucky):
        job = submit(slurm, tmp_path, "job", "true", "--no-requeue")
        wait_ended(tmp_path, "job")
        assert unlucky.failures == 0
        assert words(tmp_path, "job") == ["began", "ended"]
        assert any("not made: The image is gone;" in text for text in told(elastic))
        # what it may do from now on is what it was submitted with
        assert " Requeue=0 " in slurm.run("scontrol", "--oneliner", "show", "job", job)
        wait_gone(elastic)


def test_a_node_that_dies_is_noticed_and_its_job_runs_once_more(cluster: Cluster, tmp_path: Path) -> None:
    elastic, slurm = cluster
    wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
    with controller(elastic):
        submit(slurm, tmp_path, "resumable", wait, "--requeue")
        lost = submit(slurm, tmp_path, "other", wait, "--no-requeue")
        wait_for(lambda: words(tmp_path, "resumable") == words(tmp_path, "other") == ["began"], "both run")
        for name in ("resumable", "other"):
            kill_machine(machines(elastic), places(tmp_path, name)[0][0])
        wait_for(lambda: words(tmp_path, "resumable") == ["began"] * 2, "it runs again")
        (tmp_path / "go").touch()
        wait_ended(tmp_path, "resumable")
        assert words(tmp_path, "resumable") == ["began", "began", "ended"]  # the first one was ended
        assert words(tmp_path, "other") == ["began"]
        assert "NODE_FAIL" in slurm.run("scontrol", "show", "job", lost)
        assert any("its machine is gone; its jobs go to other nodes" in text for text in told(elastic))
        wait_gone(elastic)


def test_a_controller_that_knows_nothing_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    elastic, slurm = cluster
    control = Control(slurm.conf)
    submit(slurm, tmp_path, "job", f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done")
    wait_for(lambda: any(node.wanted for node in control.nodes().values()), "a node is wanted")
    with controller(elastic):  # which nobody rang for
        wait_for(lambda: bool(elastic.provider().nodes()), "it is being made")
    (elastic.folder / FILE).unlink()
    with controller(elastic):
        wait_for(lambda: words(tmp_path, "job") == ["began"], "the job runs")
    (tmp_path / "go").touch()
    wait_ended(tmp_path, "job")
    wait_for(
        lambda: not any(n.on or n.wanted for n in control.nodes().values()), "the node is not wanted any more"
    )
    with controller(elastic):
        wait_gone(elastic)
    assert words(tmp_path, "job") == ["began", "ended"]


def test_what_nobody_owns_is_removed(cluster: Cluster) -> None:
    elastic, slurm = cluster
    control = Control(slurm.conf)
    wait_for(lambda: all(node.off for node in control.nodes().values()), "all is quiet")
    elsewhere = machines(elastic)
    elsewhere.prefix = "other-"
    stranger = elsewhere.folder / "other-1"
    stranger.mkdir()
    left_over = f"{elastic.prefix}{NODES + 1}"  # of a time when there were more
    (elsewhere.folder / left_over).mkdir()
    assert set(elastic.provider().nodes()) == {left_over}
    with controller(elastic):
        wait_gone(elastic)
        assert stranger.is_dir()
        assert any("is removed: nobody owns it" in text for text in told(elastic))


def test_lists_of_nodes_are_read_as_slurm_reads_them(cluster: Cluster) -> None:
    text = "x,n[1-3,7],sc12ab-[08-11,99]"
    assert expand(text) == tuple(cluster[1].run("scontrol", "show", "hostnames", text).split())


def test_the_controller_s_part(home: Path, config: Config, tmp_path: Path) -> None:
    quiet = ElasticNodes(config, wake=lambda: None)
    quiet.reconcile()  # a home without elastic nodes has nothing to do
    assert not (home / "slurm").exists()
    (home / "sites.toml").write_text(
        """
        [here]
        kind = "home"
        batch = "slurm"
        flavours = [{ name = "gpu", cpus = 1, memory_gb = 0.5, gpus = 2 }]
        [here.elastic]
        provider = "processes"
        max_nodes = 1
        idle_seconds = 1
        options = { gpus = "stand-ins" }
        """
    )
    size = Elastic.of(read_sites(config).home)
    assert size is not None
    with elastic_slurm(size, home / "slurm") as (cluster, slurm):
        rung = threading.Event()
        part = ElasticNodes(config, wake=rung.set)
        part.reconcile()
        jobs = BatchBackend(config.jobs, slurm.system)
        with pytest.raises(JobRefused, match=r"asks for 3 GPUs, but .* 2"):
            jobs.submit(sh("true", tmp_path, gpus=3), "too many")
        job = jobs.submit(sh("echo $CUDA_VISIBLE_DEVICES", tmp_path, gpus=2), "job")
        assert rung.wait(240), "Slurm has asked for a node"

        def look() -> bool:
            part.reconcile()
            return jobs.status([job])[job].state.is_final and not cluster.provider().nodes()

        wait_for(look, "the job has run, and the node is gone")
        assert jobs.logs(job).stdout == "0,1\n"
