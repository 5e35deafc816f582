"""How a job starts at a site: the folder in which `there` runs, and the job for the site's batch system."""

import json
import shutil
from pathlib import Path

from scipion_cloud.broker import there
from scipion_cloud.broker.contents import Contents
from scipion_cloud.broker.parcel import Parcel
from scipion_cloud.broker.queues import parallel_command
from scipion_cloud.errors import TransferError
from scipion_cloud.jobs import JobId, JobSpec
from scipion_cloud.sites import reach
from scipion_cloud.sites.model import Site
from scipion_cloud.sites.scipion import scipion_environment

STAGE, BEGAN = "run", "began"
"""In the folder of the order: what goes to the run's folder, and the file that tells that it has."""


def write_order(
    folder: Path,
    site: Site,
    spec: JobSpec,
    parcel: Parcel,
    place: str,
    contents: Contents,
    turn: tuple[JobId, int],
) -> None:
    """Write all that a job needs to start there into a folder; `place` is its root's below the area.

    `turn` is the job's number here and its attempt: a later one in the same folder has larger ones.

    Raises TransferError when the disk refuses.
    """
    root, inner = str(parcel.root), Path()
    if spec.cwd.is_relative_to(parcel.root):
        inner = spec.cwd.relative_to(parcel.root)
    order = {
        "root": place,
        "run": parcel.run,
        "turn": turn,
        "links": dict(contents.links),
        "folders": list(contents.folders),
        "cwd": f"{place}/{inner}",
        "argv": [_elsewhere(word, root, f"{reach.area(site)}/{place}") for word in spec.argv],
        "scipion": None
        if parcel.protocol is None
        else {
            "home": str(site.scipion_home or ""),
            "mpi": parallel_command(site.mpi),
            "db": parcel.run_db,
            "id": parcel.protocol,
        },
    }
    try:
        (folder / STAGE).mkdir(parents=True, exist_ok=True)
        (folder / "order.json").write_text(json.dumps(order))
        shutil.copyfile(there.__file__, folder / "there.py")
    except OSError as e:
        raise TransferError(f"{folder} cannot be written: {e.strerror}.") from e


def spec_there(site: Site, spec: JobSpec, parcel: Parcel, start: str) -> JobSpec:
    """The job at the site; `start` is where the order lies below the area."""
    area = reach.area(site)
    plain = parcel.protocol is None
    python = site.python if plain or site.scipion is None else str(site.scipion)
    return JobSpec(
        argv=(python, f"{area}/{start}/there.py"),
        cwd=area,
        name=spec.name,
        cpus=spec.cpus,
        tasks=spec.tasks,
        gpus=spec.gpus,
        memory_gb=spec.memory_gb,
        hours=spec.hours,
        grace=spec.grace,
        env=dict(site.env) if plain else scipion_environment(site),
        owner=spec.owner,
        resumable=spec.resumable,
    )


def _elsewhere(word: str, root: str, there_root: str) -> str:
    """A word of a command with the root's path at the site in place of the one here."""
    if word == root or word.startswith(f"{root}/"):
        return there_root + word[len(root) :]
    return word
