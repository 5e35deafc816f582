"""Tar archives, read from front to back."""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Self, cast

from scipion_cloud.copies.members import BadArchive, Checked, Member, damaged, nanoseconds
from scipion_cloud.sync.entry import EntryKind

_CHUNK = 1024 * 1024
# what damaged or hostile headers make tarfile raise
_ODD = (tarfile.TarError, ValueError, OverflowError, LookupError, TypeError)


class _Info(tarfile.TarInfo):
    """Remembers that the end of the archive was seen: tarfile takes garbage and a cut for it as well."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            tarfile_.ended = True  # type: ignore[attr-defined]
            raise


def members(stream: Checked) -> Iterator[Member]:
    """All that is in a tar archive. Raises BadArchive."""
    try:
        tar = tarfile.open(  # type: ignore[call-overload]  # noqa: SIM115 - closed below
            mode="r|", fileobj=stream, encoding="utf-8", errors="surrogateescape", tarinfo=_Info
        )
    except _ODD as e:
        raise BadArchive(
            "This is no archive that can be unpacked here: give a .tar, .tar.gz, .tar.bz2, .tar.xz, .tar.zst "
            f"or .zip file ({e})."
        ) from e
    with tar:
        while (info := _next(tar)) is not None:
            yield _member(tar, info)
            tar.members.clear()  # else all would be remembered
        if not getattr(tar, "ended", False):
            raise damaged("its end is missing")
    while stream.read(_CHUNK):  # checksums stand at the end
        pass


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return tar.next()
    except BadArchive:
        raise
    except _ODD as e:
        raise damaged(e) from e


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    try:
        path, target = _raw(info.name), _raw(info.linkname)
        mode, mtime = info.mode & 0o7777, nanoseconds(float(info.mtime))
        if info.isreg():
            content = Checked(cast(BinaryIO, tar.extractfile(info)), _ODD)
            return Member(path, EntryKind.FILE, mode, mtime, info.size, content=content)
    except _ODD as e:
        raise damaged(e) from e
    if info.isdir():
        return Member(path, EntryKind.FOLDER, mode, mtime)
    if info.issym():
        return Member(path, EntryKind.LINK, mode, mtime, target=target)
    if info.islnk():
        return Member(path, EntryKind.HARD_LINK, mode, mtime, target=target)
    return Member(path, None)


def _raw(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
