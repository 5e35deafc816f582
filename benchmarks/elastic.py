"""From no elastic node at all to a running job, against the fastest way that Slurm itself knows.

    python benchmarks/elastic.py [--provider processes] [--rounds 4]

The floor is a ResumeProgram that starts slurmd itself, with no controller, no records, and nobody who notices
when it fails; everything else of the two clusters is the same. Measured from sbatch, with all nodes off,
until a job of one CPU has written its first line. Slurm counts in whole seconds from its start on, so each
round has clusters of its own. Prints both times and their ratio.
"""

import argparse
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from scipion_cloud.cluster.control import Control
from scipion_cloud.cluster.elastic import Elastic, ElasticCluster
from scipion_cloud.cluster.nodes import Nodes
from scipion_cloud.cluster.power import RESUME, SUSPEND, listen
from scipion_cloud.cluster.private import PrivateSlurm
from scipion_cloud.controller.background import Background
from scipion_cloud.controller.bell import Bell
from scipion_cloud.errors import JobError
from scipion_cloud.testing.node_provider import elastic_slurm

WITHIN = 300.0  # s
EACH = 2  # times in each round
TICK = 0.5  # s, as the controller's

# the same wait for the next second as our own nodes, which Slurm would take for stale ones without it
FLOOR_RESUME = """\
#!/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SLURM_CONF={conf}
export PATH SLURM_CONF
for name in $(scontrol show hostnames "$1"); do
    (sleep "$(date +%N | awk '{{ print 1 - $1 / 1e9 }}')"
     exec setsid env --default-signal slurmd -D -b -N "$name" > {folder}/$name.log 2>&1) &
done
"""
FLOOR_SUSPEND = """\
#!/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SLURM_CONF={conf}
export PATH SLURM_CONF
for name in $(scontrol show hostnames "$1"); do kill "$(cat {folder}/slurmd-$name.pid)"; done
exit 0
"""


def main(argv: Sequence[str] | None = None) -> float:
    """Run the benchmark and return the ratio."""
    parser = argparse.ArgumentParser(
        description="From no elastic node to a running job, against Slurm alone."
    )
    parser.add_argument("--provider", choices=["processes", "namespaces"], default="processes")
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args(argv)
    times: dict[str, list[float]] = {"slurm": [], "cloud": []}
    for number in range(given.rounds):
        for way in ("slurm", "cloud")[:: 1 if number % 2 == 0 else -1]:
            with _floor() if way == "slurm" else _cloud(given.provider) as slurm:
                _round(slurm)  # Slurm takes longer for its first job
                times[way] += [_round(slurm) for _ in range(EACH)]
            print(f"{way}   {' '.join(f'{t:.2f}' for t in times[way][-EACH:])} s", flush=True)
    floor_time, cloud_time = median(times["slurm"]), median(times["cloud"])
    ratio = cloud_time / floor_time
    print(f"Slurm alone          {floor_time:7.2f} s")
    print(f"through the provider {cloud_time:7.2f} s")
    print(f"ratio                {ratio:7.3f}")
    return ratio


def _round(slurm: PrivateSlurm) -> float:
    """Seconds from sbatch to the first line of the job, and then wait until all nodes are off again."""
    control = Control(slurm.conf)
    _wait(lambda: all(node.off for node in control.nodes().values()))
    _wait(lambda: not any("POWERING_DOWN" in node.flags for node in control.nodes().values()))
    with tempfile.TemporaryDirectory() as name:
        mark = Path(name) / "mark"
        began = time.monotonic()
        slurm.run("sbatch", "-o", "/dev/null", "--mem=50", "--wrap", f"echo > {mark}")
        _wait(mark.exists, 0.005)
        return time.monotonic() - began


@contextmanager
def _floor() -> Iterator[PrivateSlurm]:
    """A Slurm that starts its nodes by itself."""
    with elastic_slurm(_size("processes")) as (cluster, slurm):
        texts = {RESUME: FLOOR_RESUME, SUSPEND: FLOOR_SUSPEND}
        for name, text in texts.items():
            (cluster.power / name).write_text(text.format(conf=cluster.conf, folder=cluster.folder))
        try:
            yield slurm
        finally:
            for file in cluster.folder.glob("slurmd-*.pid"):
                subprocess.run(["kill", file.read_text().strip()], check=False, capture_output=True)


@contextmanager
def _cloud(provider: str) -> Iterator[PrivateSlurm]:
    """The same with a controller's part at its usual pace."""
    with elastic_slurm(_size(provider)) as (cluster, slurm), _controller(cluster):
        yield slurm


@contextmanager
def _controller(cluster: ElasticCluster) -> Iterator[None]:
    bell = Bell()
    nodes = Nodes(cluster, Background(done=bell.ring))
    listen(cluster.power, bell.ring)

    def run() -> None:
        while not bell.stopped:
            with suppress(JobError):
                nodes.reconcile()
            bell.wait(TICK)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        bell.stop()
        thread.join()


def _size(provider: str) -> Elastic:
    return Elastic(provider, nodes=2, cpus=1, memory_gb=0.5, idle_seconds=1)


def _wait(test: Callable[[], bool], pause: float = 0.1) -> None:
    deadline = time.monotonic() + WITHIN
    while not test():
        if time.monotonic() > deadline:
            raise RuntimeError("Slurm did not get there in time.")
        time.sleep(pause)


if __name__ == "__main__":
    main()
