"""A copy of a project as it was saved in its storage. Reading needs no lock: what was saved never changes."""

import shutil
from pathlib import Path

from scipion_cloud.copies.order import FromStorage
from scipion_cloud.copies.report import Report
from scipion_cloud.copies.room import Room
from scipion_cloud.errors import SyncError
from scipion_cloud.storage import open_storage
from scipion_cloud.storage.sealing import Sealer
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.entry import EntryKind
from scipion_cloud.sync.layout import SERVICE
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.restore import restore


def copy_generation(
    what: FromStorage, target: Path, state: Path, report: Report, *, new_dataset: Path | None = None
) -> None:
    """Fetch a generation into the folder `target`; what an earlier, interrupted call fetched is kept.

    `state` is a folder for what is known about the target meanwhile. Links into the project's read-only
    dataset lead into `new_dataset`. Raises NoRoom, NotFound, StorageError, and SyncError if files in the
    storage are damaged.
    """
    sealed = Path(what.credentials).read_text()
    with open_storage(what.url, Sealer(Path(what.key)).open(sealed)) as storage:
        repository = Repository(storage)
        latest = repository.latest() if what.generation is None else repository.generation(what.generation)
        if latest is None:
            raise SyncError("Nothing of this project has been saved in its storage yet. Open it there first.")
        target.mkdir(mode=0o700, exist_ok=True)
        copy = WorkingCopy(target, state, new_dataset)
        try:
            with Room(target) as room:
                room.require(latest.bytes - _here(target))
                for problem in restore(repository, latest, copy, progress=report.progress):
                    report.problem(problem.path, problem.text)
        finally:
            copy.close()
        if new_dataset is None:
            for entry in repository.manifest(latest.number).values():
                if entry.kind is EntryKind.SOURCE_LINK:
                    report.problem(entry.path, "leads into a dataset that this project does not have.")
    shutil.rmtree(target / SERVICE)
    shutil.rmtree(state)


def _here(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
