"""Jobs through Scipion Cloud and Slurm against Slurm's own commands, on a private Slurm.

python benchmarks/jobs.py [--jobs 1000] [--polled 10000] [--starts 20] [--deployments 10000]
                          [--parts submit poll start tick]

submit  jobs one by one against one sbatch each; all at once against one sbatch of an array
poll    the status of all jobs against one squeue, in the processor's seconds (slurmctld's are not in it)
start   from submit to the first act of the job against sbatch of the same script
tick    one look of the controller at that many open projects
"""

# ruff: noqa: PLC0415 - what needs Django is imported when the home is there

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median

from _cost import Cost

from scipion_cloud.cluster.private import PrivateSlurm
from scipion_cloud.config import Config, get_config
from scipion_cloud.jobs import JobId, JobSpec
from scipion_cloud.jobs.batch import BatchBackend
from scipion_cloud.jobs.systems import write_system
from scipion_cloud.testing.servers.slurm import slurm

PARTS = ("submit", "poll", "start", "tick")
ROUNDS = 5


def main(argv: Sequence[str] | None = None) -> None:
    """Run the parts asked for and print their ratios (ours by the bare command's)."""
    parser = argparse.ArgumentParser(description="Jobs through Scipion Cloud against bare Slurm.")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--polled", type=int, default=10_000)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--deployments", type=int, default=10_000)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args(argv)
    if "submit" in given.parts:
        _submit(given.jobs)
    if "poll" in given.parts:
        _poll(given.polled)
    if "start" in given.parts:
        _start(given.starts)
    if "tick" in given.parts:
        _tick(given.deployments)


def _submit(count: int) -> None:
    with _queue(slurmd=False) as (cluster, backend, folder):
        spec = JobSpec(("true",), folder, memory_gb=0.1)
        sbatch = ["sbatch", "--output=/dev/null", "--wrap=true"]
        bare = _cost(lambda: [cluster.run(*sbatch) for _ in range(count)])
        ours = _cost(lambda: [backend.submit(spec, f"one-{n}") for n in range(count)])
        array = _cost(lambda: cluster.run(*sbatch, f"--array=0-{count - 1}"))
        bulk = _cost(lambda: backend.submit_all([(spec, f"all-{n}") for n in range(count)]))
        known = len(cluster.run("squeue", "-h", "-r").split("\n")) - 1
    if known != 4 * count:
        raise RuntimeError(f"Slurm has {known} jobs instead of {4 * count}.")
    print(f"submit {count} one by one   ours {ours.wall:6.2f} s   sbatch {bare.wall:6.2f} s", flush=True)
    print(f"  ratio {ours.wall / bare.wall:.2f}, of CPU {ours.cpu / bare.cpu:.2f}")
    print(f"submit {count} at once      ours {bulk.wall:6.2f} s   sbatch --array {array.wall:6.2f} s")
    print(f"  against sbatch one by one: ratio {bulk.wall / bare.wall:.3f}", flush=True)


def _poll(count: int) -> None:
    with _queue(slurmd=False) as (cluster, backend, folder):
        spec = JobSpec(("true",), folder, memory_gb=0.1)
        ids = backend.submit_all([(spec, f"{n}") for n in range(count)])
        ask = ["squeue", "--me", "--states=all", "--array", "--noheader", "--format=%F|%K|%j|%T|%N|%r"]
        ours, bare = [], []
        for _ in range(ROUNDS):
            ours.append(_cost(lambda: backend.status(ids)))
            bare.append(_cost(lambda: cluster.run(*ask)))
        rested = BatchBackend(backend.spool, backend.system, max_queued=10**6, poll=3600.0)
        rested.status(ids[:1])
        quiet = median(_cost(lambda: rested.status(ids)).cpu for _ in range(ROUNDS))
    mine, theirs = median(c.cpu for c in ours), median(c.cpu for c in bare)
    print(f"poll {count}   ours {mine:.3f} s of CPU, squeue among them   squeue {theirs:.3f} s of CPU")
    print(f"  ratio {mine / theirs:.2f}; between two looks at Slurm {quiet:.3f} s of CPU", flush=True)


def _start(count: int) -> None:
    with _queue() as (cluster, backend, folder):
        ours, bare = [], []
        for number in range(count):
            for way in ("ours", "bare")[:: 1 if number % 2 == 0 else -1]:
                mark = folder / f"{way}{number}"
                script = f"date +%s.%N > {mark}.new && mv {mark}.new {mark}"
                began = time.time()
                if way == "ours":
                    backend.submit(JobSpec(("sh", "-c", script), folder, memory_gb=0.1), mark.name)
                    ours.append(_when(mark) - began)
                else:
                    cluster.run("sbatch", "--output=/dev/null", f"--chdir={folder}", f"--wrap={script}")
                    bare.append(_when(mark) - began)
    mine, theirs = median(ours), median(bare)
    print(f"submit to start   ours {mine:.2f} s   sbatch {theirs:.2f} s   (medians of {count})")
    print(f"  ratio {mine / theirs:.2f}, {mine - theirs:+.2f} s", flush=True)


def _tick(count: int) -> None:
    with _queue(slurmd=False) as (cluster, _, folder), _home(folder / "home", cluster) as config:
        ids = _deployments(config, count)
        from scipion_cloud.controller.deployments import reconcile_deployments
        from scipion_cloud.controller.loop import Parts
        from scipion_cloud.jobs import backend_for

        parts = Parts({"deployments": reconcile_deployments, "jobs": backend_for(config).tick})
        parts.tick()  # notes once why all of them wait
        ticks = [_cost(parts.tick) for _ in range(ROUNDS)]
        polls = [_cost(lambda: backend_for(config).status(ids)) for _ in range(ROUNDS)]
        tick, poll = median(c.cpu for c in ticks), median(c.cpu for c in polls)
        wall, each = median(c.wall for c in ticks), 1000 * tick / count
        print(f"tick with {count} open projects   {wall:.2f} s, {tick:.2f} s of CPU")
        print(f"  {each:.3f} ms of CPU for each; the status of their jobs alone {poll:.2f} s", flush=True)


def _deployments(config: Config, count: int) -> list[JobId]:
    """Open projects whose agents wait in Slurm: the ids of their jobs."""
    import django
    from django.core.management import call_command

    django.setup()
    from django.utils import timezone

    from scipion_cloud.deployments.states import Phase
    from scipion_cloud.deployments.status import STATUS_FILE, AgentStatus
    from scipion_cloud.jobs import backend_for
    from scipion_cloud.portal.administrator import first_administrator
    from scipion_cloud.records.models import Deployment, Project

    call_command("migrate", verbosity=0, run_syncdb=True)
    user, spec = first_administrator(), JobSpec(("true",), config.home, cpus=0, memory_gb=0.1)
    backend = backend_for(config)
    ids = backend.submit_all([(spec, f"{n}") for n in range(count)])
    reasons = [status.reason or "Waiting for its turn." for status in backend.status(ids).values()]
    projects = [Project(name=f"P{n}", folder=f"p-{n}", owner=user) for n in range(count)]
    Project.objects.bulk_create(projects)
    until = timezone.now() + timedelta(days=7)
    deployments = [
        Deployment(project=project, user=user, deadline=until, job_id=job, message=reason)
        for project, job, reason in zip(projects, ids, reasons, strict=True)
    ]
    Deployment.objects.bulk_create(deployments)
    now = timezone.now()
    for deployment in deployments:  # what its agent has told, which is read at each look
        key, path = deployment.pk.hex, deployment.path
        path.mkdir()
        told = AgentStatus(Phase.READY, "", "file:///storage", str(path), key, 1, "host", now, now)
        (path / STATUS_FILE).write_bytes(told.to_json())
    return ids


@contextmanager
def _queue(*, slurmd: bool = True) -> Iterator[tuple[PrivateSlurm, BatchBackend, Path]]:
    """A Slurm, a queue on it that looks whenever it is asked, and a folder. Without slurmd all jobs wait."""
    with tempfile.TemporaryDirectory(prefix="scb-") as name, slurm(cpus=2, slurmd=slurmd) as cluster:
        folder = Path(name)
        yield cluster, BatchBackend(folder / "jobs", cluster.system, max_queued=10**6, poll=0.0), folder


@contextmanager
def _home(home: Path, cluster: PrivateSlurm) -> Iterator[Config]:
    """A home whose jobs go through this cluster."""
    os.environ |= {"SCIPION_CLOUD_HOME": str(home)}
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scipion_cloud.portal.settings")
    get_config.cache_clear()
    config = get_config()
    for folder in (config.jobs, config.projects, config.agents):
        folder.mkdir(parents=True)
    write_system(config.jobs, "slurm", cluster.options)
    yield config


def _cost(work: Callable[[], object]) -> Cost:
    """What it takes, with the programs that it starts and waits for."""
    before, began = os.times(), time.monotonic()
    work()
    after = os.times()
    return Cost(time.monotonic() - began, sum(after[:4]) - sum(before[:4]))


def _when(mark: Path) -> float:
    while not mark.exists():
        time.sleep(0.005)
    return float(mark.read_text())


if __name__ == "__main__":
    main()
