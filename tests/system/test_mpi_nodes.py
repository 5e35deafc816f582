"""RELION's MPI over two nodes that are hosts of their own: through our queue, Slurm, mpirun and srun.

Needs root, for the network namespaces that the nodes live in.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scipion_cloud.cluster.elastic import Elastic
from scipion_cloud.examples.particles import ParticleSpec, write_particles
from scipion_cloud.jobs import JobSpec
from scipion_cloud.jobs.batch import BatchBackend
from scipion_cloud.jobs.spec import JobState
from scipion_cloud.testing.job_backend import wait_for
from scipion_cloud.testing.node_provider import elastic_slurm

pytestmark = [pytest.mark.scipion, pytest.mark.timeout(600)]

RANKS = 3  # RELION's leader and two followers, on nodes of 2 CPUs
REFINE = [
    "relion_refine_mpi",
    *("--i", "particles.star", "--ctf", "--K", "2", "--iter", "2", "--tau2_fudge", "2"),
    *("--particle_diameter", "300", "--zero_mask", "--flatten_solvent", "--norm", "--scale"),
    *("--oversampling", "0", "--psi_step", "30", "--offset_range", "2", "--offset_step", "2"),
    *("--dont_combine_weights_via_disc", "--pool", "3", "--pad", "1", "--j", "1"),
]
LAUNCHERS = {"mpirun": ["mpirun", "-n", f"{RANKS}"], "srun": ["srun", "--mpi=pmix", "-n", f"{RANKS}"]}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchBackend]:
    """The queue of a Slurm with two nodes of 2 CPUs, each with its own name and network."""
    with elastic_slurm(Elastic("namespaces", nodes=2, cpus=2, memory_gb=2.0)) as (cluster, head):
        provider = cluster.provider()
        head.run("scontrol", "update", f"nodename={','.join(cluster.names)}", "state=power_up")
        for name in cluster.names:
            provider.create(name)
        yield BatchBackend(tmp_path_factory.mktemp("spool"), head.system)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    write_particles(folder, 30, ParticleSpec(pixel_size=12))
    return folder


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_classification_runs_on_two_nodes(backend: BatchBackend, folder: Path, launcher: str) -> None:
    (folder / launcher).mkdir()
    # mpirun will not be root's without being told twice
    env = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    tell = ("sh", "-c", 'echo "rank on $(hostname)"; exec "$@"', "sh")
    argv = (*LAUNCHERS[launcher], *tell, *REFINE, "--o", f"{launcher}/run")
    job = backend.submit(JobSpec(argv, folder, launcher, tasks=RANKS, memory_gb=0.5, env=env), launcher)
    (status,) = wait_for(backend, job, seconds=400)
    logs = backend.logs(job)
    assert status.state is JobState.DONE, f"{status.reason}: {logs.stdout}{logs.stderr}"
    hosts = re.findall(r"^rank on (\S+)$", logs.stdout, re.MULTILINE)
    assert len(hosts) == RANKS, logs.stdout
    assert len(set(hosts)) == 2, f"all on {hosts}"
    model = (folder / launcher / "run_it002_model.star").read_text()
    assert re.search(r"_rlnNrClasses +2\b", model)
