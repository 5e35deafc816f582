"""A private Slurm: real daemons in a folder of their own, however they are started, stopped or killed."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scipion_cloud.cluster import daemons
from scipion_cloud.cluster.private import PrivateSlurm, can_constrain
from scipion_cloud.cluster.slurm_conf import NodeShape
from scipion_cloud.errors import SetupError
from scipion_cloud.jobs.processes import started
from scipion_cloud.testing.servers.slurm import slurm

SOMEBODY = """
from scipion_cloud.testing.servers.slurm import slurm
with slurm(cpus=1) as cluster:
    print(cluster.run("srun", "id", "-u"), cluster.run("srun", "-p", "interactive", "echo", "here"))
"""


def wait_for(condition: Callable[[], object], within: float = 120.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def processes(cluster: PrivateSlurm) -> dict[int, int]:
    """All processes that belong to a cluster, as pid -> start."""
    return {**daemons.servers(cluster.conf), **daemons.workers(cluster.conf)}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
def cluster(folder: Path) -> Iterator[PrivateSlurm]:
    cluster = PrivateSlurm(folder, [NodeShape(2, 2.0)], constrain=False)
    cluster.start()
    yield cluster
    cluster.stop(grace=1)
    assert processes(cluster) == {}


def batch(cluster: PrivateSlurm, script: str, *options: str) -> str:
    """Submit a line of sh; the job's id."""
    words = ["sbatch", "--parsable", "--output=/dev/null", f"--chdir={cluster.folder}", *options]
    return cluster.run(*words, f"--wrap={script}").strip()


def state(cluster: PrivateSlurm, job: str) -> str:
    return cluster.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").strip()


def test_nodes_and_gpus_are_as_asked_for() -> None:
    with slurm(nodes=2, cpus=3, memory_gb=1.5, gpus=2) as cluster:
        shown = cluster.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %c %m %G").splitlines()
        assert shown == ["n1 3 1536 gpu:2", "n2 3 1536 gpu:2"]
        told = cluster.run("srun", "-N2", "-n2", "--gres=gpu:1", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
        assert told.split() == ["0", "0"]
        assert cluster.system.limits()[:2] == (3, 1.5)
        assert processes(cluster)
    assert processes(cluster) == {}


def test_any_user_can_have_one() -> None:
    """Root is nobody here, in a user namespace; others are who they are."""
    nobody = ["unshare", "--user", "--map-user=65534", "--map-group=65534"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*nobody, sys.executable, "-c", SOMEBODY], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["65534" if nobody else f"{os.geteuid()}", "here"]


def test_an_interactive_job_does_not_wait_for_those_that_compute(cluster: PrivateSlurm) -> None:
    batch(cluster, "sleep 600", "-n2")
    waiting = batch(cluster, "sleep 600", "-n2")
    assert "here" in cluster.run("srun", "-p", "interactive", "echo", "here")
    assert state(cluster, waiting) == "PENDING"


def test_the_queue_survives_a_stop_and_a_start(cluster: PrivateSlurm) -> None:
    held = batch(cluster, "true", "--hold")
    port = cluster.port
    cluster.stop(jobs=False)
    assert processes(cluster) == {}
    cluster.start()
    assert cluster.port == port
    assert state(cluster, held) == "PENDING"
    cluster.run("scontrol", "release", held)
    wait_for(lambda: state(cluster, held) == "COMPLETED")


def test_what_a_crash_left_is_healed_and_jobs_go_on(cluster: PrivateSlurm) -> None:
    job = batch(cluster, "echo $$ > pid; until [ -e go ]; do sleep 0.1; done; echo end > mark")
    wait_for(lambda: (cluster.folder / "pid").exists() and (cluster.folder / "pid").read_text())
    began = time.time()
    # Slurm's controller writes down what has happened every few seconds
    wait_for(lambda: (cluster.folder / "state" / "job_state").stat().st_mtime > began)
    for pid in daemons.servers(cluster.conf):
        os.kill(pid, signal.SIGKILL)
    again = PrivateSlurm(cluster.folder, cluster.shapes, constrain=False)
    again.start()
    assert state(again, job) == "RUNNING"
    (cluster.folder / "go").touch()
    wait_for(lambda: state(again, job) == "COMPLETED")
    assert (cluster.folder / "mark").read_text() == "end\n"
    again.stop()


def test_a_second_start_takes_the_place_of_the_first(cluster: PrivateSlurm) -> None:
    before = daemons.servers(cluster.conf)
    assert before
    again = PrivateSlurm(cluster.folder, cluster.shapes, constrain=False)
    again.start()
    after = daemons.servers(cluster.conf)
    assert len(after) == len(before)
    assert not before.keys() & after.keys()
    again.stop()


def test_stopping_ends_jobs_with_all_that_they_started(cluster: PrivateSlurm) -> None:
    script = "trap '' TERM; (setsid sh -c 'echo $$ > stray; sleep 600' &); sleep 600"
    batch(cluster, script)
    wait_for(lambda: (cluster.folder / "stray").exists() and (cluster.folder / "stray").read_text())
    stray = int((cluster.folder / "stray").read_text())
    assert started(stray)
    cluster.stop(grace=1)
    assert processes(cluster) == {}
    assert started(stray) is None


def test_two_clusters_live_beside_each_other(cluster: PrivateSlurm) -> None:
    with slurm(cpus=1) as other:
        job = batch(cluster, "sleep 600")
        assert other.port != cluster.port
        assert other.run("squeue", "-h") == ""
        assert state(cluster, job) in ("PENDING", "RUNNING")
    assert cluster.is_up()


def test_without_slurmd_jobs_wait() -> None:
    with slurm(slurmd=False) as cluster:
        assert cluster.nodes_up() == set()
        job = batch(cluster, "true")
        assert state(cluster, job) == "PENDING"


def test_memory_is_held_to_where_that_can_be(folder: Path) -> None:
    """As root with control groups version 1 it is; elsewhere asking for it is refused."""
    shapes = [NodeShape(1, 1.0)]
    if not can_constrain():
        with pytest.raises(SetupError, match="only for root"):
            PrivateSlurm(folder, shapes, constrain=True)
        return
    cluster = PrivateSlurm(folder, shapes)
    cluster.start()
    try:
        hungry = batch(cluster, "head -c 400M /dev/zero | tail -c 300M > /dev/null", "--mem=50M")
        modest = batch(cluster, "head -c 1M /dev/zero | tail -c 1M > /dev/null", "--mem=50M")
        wait_for(lambda: state(cluster, modest) == "COMPLETED")
        assert state(cluster, hungry) in ("OUT_OF_MEMORY", "FAILED")
    finally:
        cluster.stop()


@pytest.mark.parametrize(
    ("name", "said"), [("with space", "takes only letters"), ("50%", "takes only"), ("long" * 20, "short")]
)
def test_folders_that_slurm_cannot_read_are_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        PrivateSlurm(tmp_path / name)


def test_a_configuration_that_slurm_refuses_is_told_with_its_words(folder: Path) -> None:
    cluster = PrivateSlurm(folder, [NodeShape(1, 1.0)], constrain=False, extra="NoSuchThing=1")
    with pytest.raises(SetupError, match="NoSuchThing"):
        cluster.start(within=60)
    assert processes(cluster) == {}
