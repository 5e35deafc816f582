"""The life of one upload between the table and the disk: found, written, given its name, ended."""

import os
import uuid
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.utils import timezone

from scipion_cloud.errors import Conflict, NotFound
from scipion_cloud.portal.uploads import plan
from scipion_cloud.portal.uploads.access import Access
from scipion_cloud.portal.uploads.folder import DataFolder
from scipion_cloud.portal.uploads.lock import Busy, acquire, locked
from scipion_cloud.portal.uploads.names import show
from scipion_cloud.portal.uploads.stream import on_disk
from scipion_cloud.records.models import Upload


@dataclass
class Writing:
    """An upload that this request alone may write, until `close`."""

    upload: Upload
    offset: int  # bytes that had arrived at the start
    fd: int | None  # appends to the part file; None if the file is whole already

    def arrived(self) -> int:
        """Bytes on disk now."""
        return self.upload.size if self.fd is None else os.fstat(self.fd).st_size

    def cut(self) -> None:
        """Drop what this request brought."""
        if self.fd is not None:
            os.ftruncate(self.fd, self.offset)

    async def finish(self) -> None:
        """The file is whole: make it safe on disk and give it its name. Raises Conflict if that is taken."""
        if self.fd is not None:
            await on_disk(_place, self.upload, self.fd)
        await _mark(self.upload)

    def close(self) -> None:
        """Let others write."""
        if self.fd is not None:
            os.close(self.fd)


@sync_to_async
def announce_one(who: Access, path: str, size: int) -> Upload:
    """See plan.announce_one."""
    return plan.announce_one(who.project, who.user, path, size)


@sync_to_async
def find(who: Access, upload_id: uuid.UUID) -> Upload:
    """The upload, if it belongs to the project. Raises NotFound."""
    upload = Upload.objects.select_related("project").filter(pk=upload_id, project=who.project).first()
    if upload is None:
        raise NotFound("There is no such upload, or it was forgotten; announce the file again.")
    return upload


async def open_writing(upload: Upload) -> Writing:
    """Take the upload for one request. Raises Busy, Conflict (something stands in its place) or NoSpace."""
    return await on_disk(_open, upload)


async def settle(upload: Upload) -> int:
    """Bytes that have arrived; all that was whole before a crash gets its name and is marked now."""
    arrived = await on_disk(_settle, upload)
    if arrived == upload.size:
        await _mark(upload)
    return arrived


async def end(upload: Upload) -> None:
    """Forget an upload and what has arrived of it. Raises Busy, or Conflict if the file is whole."""
    await on_disk(_drop, upload)
    await sync_to_async(upload.delete)()


def _open(upload: Upload) -> Writing:
    with DataFolder(upload.project) as folder:
        if _is_whole(folder, upload):
            return Writing(upload, upload.size, None)
        fd = acquire(folder, upload.pk)
        try:
            arrived = os.fstat(fd).st_size
            if arrived > upload.size:
                raise Conflict("More has arrived than the file is long; forget the upload and send it again.")
            folder.require(upload.size - arrived, f"The rest of “{show(upload.path)}” takes")
        except BaseException:
            os.close(fd)
            raise
        return Writing(upload, arrived, fd)


def _place(upload: Upload, fd: int) -> None:
    os.fsync(fd)
    with DataFolder(upload.project) as folder:
        folder.place(upload.pk, upload.path)


def _settle(upload: Upload) -> int:
    with DataFolder(upload.project) as folder:
        if _is_whole(folder, upload):
            return upload.size
        arrived = folder.part_size(upload.pk) or 0
        if arrived == upload.size:
            try:
                with locked(folder, upload.pk) as fd:
                    _place(upload, fd)
            except Busy:  # whoever holds it gives it its name
                pass
        return arrived


def _drop(upload: Upload) -> None:
    with DataFolder(upload.project) as folder:
        if _is_whole(folder, upload):
            raise Conflict("This file has arrived whole; delete it in the list of files.")
        plan.drop(folder, upload.pk)


def _is_whole(folder: DataFolder, upload: Upload) -> bool:
    """Whether the file stands in its place. Raises Conflict if something else does."""
    found = folder.look(upload.path)
    here = found.files.get(upload.path)
    if here is None:
        if reason := found.obstacle(upload.path):
            raise Conflict(reason)
        return False
    if here.size != upload.size:
        raise Conflict(
            f"Another “{show(upload.path)}” is here by now; nothing is overwritten. Delete or rename "
            "that file, then go on: what you sent is kept."
        )
    return True


@sync_to_async
def _mark(upload: Upload) -> None:
    Upload.objects.filter(pk=upload.pk, finished=None).update(finished=timezone.now())
