"""The announcement: what is to come, what is here, what is missing. Free of HTTP."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from django.db import transaction
from django.utils import timezone

from scipion_cloud.config import get_config
from scipion_cloud.errors import Conflict, InvalidInput
from scipion_cloud.portal.uploads.folder import DataFolder, Scan, Stat
from scipion_cloud.portal.uploads.lock import Busy, locked
from scipion_cloud.portal.uploads.names import clean_path, human, show
from scipion_cloud.records.models import Project, Upload, User

MAX_FILES = 10_000  # in one announcement


class State(StrEnum):
    """Where one file stands."""

    PRESENT = "present"  # here, whole, of this size: need not be sent
    PARTIAL = "partial"  # goes on at `offset`
    MISSING = "missing"  # to be sent from its first byte
    REFUSED = "refused"  # cannot be sent; `reason` says why


@dataclass(frozen=True)
class Planned:
    """The answer for one announced file."""

    path: str
    state: State
    id: uuid.UUID | None = None  # of the upload; None if refused
    offset: int = 0  # bytes that have arrived
    reason: str = ""


@dataclass(frozen=True)
class Progress:
    """The server's own count of a project's announced files."""

    present: int
    announced: int
    bytes: int
    bytes_total: int
    missing: list[str] = field(default_factory=list)  # the first of them, in order of their names

    @property
    def percent(self) -> int:
        """Share of the bytes that have arrived, 0 to 100; 100 only when all files are whole."""
        if self.present == self.announced:
            return 100
        return min(99, 100 * self.bytes // max(self.bytes_total, 1))


def announce(project: Project, user: User, files: Sequence[tuple[str, int]]) -> list[Planned]:
    """Make known which files (path, bytes) are to come; tell for each whether to send it, and from where.

    Raises InvalidInput if there are too many, NoSpace if the disk cannot take what is missing.
    """
    if len(files) > MAX_FILES:
        raise InvalidInput(f"{len(files)} files are too many; announce at most {MAX_FILES} at a time.")
    with DataFolder(project) as folder, transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)  # one announcement at a time
        rows = Upload.objects.filter(project=project)
        planner = _Planner(project, user, rows, folder.scan(), folder.part_sizes())
        planned = [planner.plan(path, size) for path, size in files]
        folder.require(planner.to_come, "What is to be sent takes")
        planner.save()
    return planned


def announce_one(project: Project, user: User, path: str, size: int) -> Upload:
    """The upload of one file, made or found. Raises InvalidInput, Conflict (the name is taken) or NoSpace."""
    clean_path(path)
    with DataFolder(project) as folder, transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)
        rows = Upload.objects.filter(project=project, path=path)
        parts = {row.pk: folder.part_size(row.pk) or 0 for row in rows}
        planner = _Planner(project, user, rows, folder.look(path), parts)
        planned = planner.plan(path, size)
        if planned.state == State.REFUSED:
            raise Conflict(planned.reason)
        folder.require(planner.to_come, f"“{path}” takes")
        planner.save()
        return planner.row(path)


def progress(project: Project, show_missing: int = 20) -> Progress:
    """How much of what was announced has arrived, as the disk has it."""
    with DataFolder(project) as folder:
        scan, parts = folder.scan(), folder.part_sizes()
    present = arrived = total = announced = 0
    missing: list[str] = []
    for pk, path, size in Upload.objects.filter(project=project).values_list("id", "path", "size"):
        announced += 1
        total += size
        if (here := scan.files.get(path)) is not None and here.size == size:
            present += 1
            arrived += size
        else:
            arrived += min(parts.get(pk, 0), size)
            if len(missing) < show_missing:
                missing.append(path)
    return Progress(present, announced, arrived, total, missing)


def forget(project: Project, paths: Iterable[str] | None = None) -> int:
    """Take back the announcement of files that have not arrived, or of those in `paths`; their parts go.

    Files that are being sent at this moment stay. Returns how many were forgotten.
    """
    wanted = None if paths is None else set(paths)
    gone = []
    with DataFolder(project) as folder:
        for upload in Upload.objects.filter(project=project, finished=None):
            if wanted is None or upload.path in wanted:
                try:
                    drop(folder, upload.pk)
                except Busy:
                    continue
                gone.append(upload.pk)
        present = folder.scan().files
    # a finished upload whose file somebody deleted does not come back either
    for upload in Upload.objects.filter(project=project).exclude(finished=None):
        if (wanted is None or upload.path in wanted) and upload.path not in present:
            gone.append(upload.pk)
    with transaction.atomic():
        for some in range(0, len(gone), 500):
            Upload.objects.filter(pk__in=gone[some : some + 500]).delete()
    return len(gone)


def drop(folder: DataFolder, upload: uuid.UUID) -> None:
    """Delete the part file of an upload. Raises Busy if it is being written."""
    if folder.part_size(upload) is None:
        return
    with locked(folder, upload):
        folder.drop_part(upload)


class _Planner:
    """Compares announced files with the table and the disk, and saves what is new in one transaction."""

    def __init__(
        self, project: Project, user: User, rows: Iterable[Upload], scan: Scan, parts: dict[uuid.UUID, int]
    ) -> None:
        self._project, self._user, self._scan, self._parts = project, user, scan, parts
        self._rows = {row.path: row for row in rows}
        self._max = int(get_config().upload_max_gb * 2**30)
        self._seen: set[str] = set()
        self._new: list[Upload] = []
        self._changed: list[Upload] = []
        self.to_come = 0  # bytes

    def row(self, path: str) -> Upload:
        """The upload of a path that was planned."""
        return self._rows[path]

    def plan(self, path: str, size: int) -> Planned:
        """What to do with one file."""
        try:
            return self._plan(clean_path(path), size)
        except (InvalidInput, Conflict) as e:
            return Planned(show(path), State.REFUSED, reason=str(e))

    def _plan(self, path: str, size: int) -> Planned:
        if not 0 <= size <= self._max:
            raise InvalidInput(
                f"“{path}” has {human(size)}; the largest that is taken has {human(self._max)}."
            )
        if path in self._seen:
            raise InvalidInput(f"“{path}” is there twice; give the files different names.")
        self._seen.add(path)
        if reason := self._scan.obstacle(path):
            raise Conflict(reason)
        here, row = self._scan.files.get(path), self._rows.get(path)
        if here and here.size != size:
            raise Conflict(
                f"Another “{path}” is here already ({human(here.size)}, this one has {human(size)}). Nothing "
                "is overwritten: delete that file first, or rename yours."
            )
        arrived = self._parts.get(row.pk, 0) if row else 0
        if row and row.size != size and not here and arrived:
            raise Conflict(
                f"An unfinished upload of “{path}” announced {human(row.size)}, this file has {human(size)}. "
                "Forget the missing files first, or send the same file again."
            )
        row = self._record(row, path, size, here)
        if here:
            return Planned(path, State.PRESENT, row.pk, size)
        self.to_come += size - arrived
        return Planned(path, State.PARTIAL if arrived else State.MISSING, row.pk, arrived)

    def _record(self, row: Upload | None, path: str, size: int, here: Stat | None) -> Upload:
        if row is None:
            row = Upload(project=self._project, path=path, size=size, user=self._user)
            row.finished = timezone.now() if here else None
            self._rows[path] = row
            self._new.append(row)
        elif row.size != size or (row.finished is None) == bool(here):
            row.size, row.finished = size, timezone.now() if here else None
            self._changed.append(row)
        return row

    def save(self) -> None:
        """Write what is new to the table."""
        with transaction.atomic():
            Upload.objects.bulk_create(self._new, batch_size=500)
            Upload.objects.bulk_update(self._changed, ["size", "finished"], batch_size=200)
