"""Zip archives."""

import datetime
import stat as modes
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from scipion_cloud.copies.members import BadArchive, Checked, Member, damaged, nanoseconds
from scipion_cloud.sync.entry import EntryKind

_UTF8, _ENCRYPTED = 0x800, 0x1
_LONGEST_LINK = 4096  # bytes, as in the kernel
_UNIX = 3
_ODD = (zipfile.BadZipFile, zlib.error, ValueError, OverflowError, LookupError, EOFError)


def members(file: BinaryIO) -> Iterator[Member]:
    """All that is in a zip archive. Raises BadArchive."""
    try:
        archive = zipfile.ZipFile(file)
    except (*_ODD, NotImplementedError) as e:
        raise damaged(e) from e
    with archive:
        for info in archive.infolist():
            if info.flag_bits & _ENCRYPTED:
                raise BadArchive("The archive is encrypted; make it anew without a password.")
            try:
                stream = Checked(cast(BinaryIO, archive.open(info)), _ODD)
            except (*_ODD, NotImplementedError) as e:
                raise damaged(e) from e
            yield _member(info, stream)


def _member(info: zipfile.ZipInfo, stream: Checked) -> Member:
    unix = info.external_attr >> 16 if info.create_system == _UNIX else 0
    path, mtime = _path(info), _mtime(info)
    kind, mode = modes.S_IFMT(unix), modes.S_IMODE(unix)
    if info.is_dir() or kind == modes.S_IFDIR:
        return Member(path, EntryKind.FOLDER, mode or 0o755, mtime)
    if kind == modes.S_IFLNK:
        return Member(path, EntryKind.LINK, mode, mtime, target=stream.read(_LONGEST_LINK))
    if kind not in (0, modes.S_IFREG):
        return Member(path, None)
    return Member(path, EntryKind.FILE, mode or 0o644, mtime, info.file_size, content=stream)


def _path(info: zipfile.ZipInfo) -> bytes:
    """The name's own bytes: many programs write UTF-8 without saying so."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437", "surrogateescape")


def _mtime(info: zipfile.ZipInfo) -> int:
    try:
        return nanoseconds(datetime.datetime(*info.date_time, tzinfo=datetime.UTC).timestamp())
    except ValueError:
        return 0
