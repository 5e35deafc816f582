"""Many small files by SFTP in two round trips: all are opened, then all that is to be done is under way."""

import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from scipion_cloud.storage.sftp_files import finish_writing
from scipion_cloud.storage.sftp_names import make_folder, parent
from scipion_cloud.storage.sftp_protocol import (
    CREATE,
    READ,
    TRUNCATE,
    WRITE,
    Ask,
    Code,
    Protocol,
    SftpStatus,
    open_file,
    string,
)


class Small(NamedTuple):
    """A file that is to be made."""

    path: bytes
    content: bytes
    mtime: int | None  # s since 1970


def write_files(sftp: Protocol, files: Sequence[Small]) -> list[bytes]:
    """Put files in place, and onto the server's disk where it can; which folders were made for them.

    Raises SftpStatus when all replies are there.
    """
    made: list[bytes] = []
    if lacking := _write(sftp, files):
        for folder in dict.fromkeys(parent(file.path) for file in lacking):
            made += make_folder(sftp, folder)
        if _write(sftp, lacking):
            raise SftpStatus(Code.NO_SUCH_FILE, "somebody removes folders")
    return made


def _write(sftp: Protocol, files: Sequence[Small]) -> list[Small]:
    """Put files whose folders are there; the others."""
    opened = [sftp.send(Ask.OPEN, *open_file(file.path, WRITE | CREATE | TRUNCATE)) for file in files]
    lacking: list[Small] = []
    under_way: list[int] = []
    refusal: SftpStatus | None = None
    for file, number in zip(files, opened, strict=True):
        try:
            handle = sftp.handle(number)
        except SftpStatus as e:
            if e.code == Code.NO_SUCH_FILE:
                lacking.append(file)
            else:
                refusal = refusal or e
            continue
        view = memoryview(file.content)
        for place in range(0, len(view), sftp.write_size):
            chunk = view[place : place + sftp.write_size]
            under_way.append(sftp.send(Ask.WRITE, handle, struct.pack(">QI", place, len(chunk)), chunk))
        under_way += finish_writing(sftp, handle, file.mtime)
        under_way.append(sftp.send(Ask.CLOSE, handle))
    sftp.settle(under_way)
    if refusal:
        raise refusal
    return lacking


def read_files(sftp: Protocol, wanted: Sequence[tuple[bytes, int]]) -> Iterator[bytes | None]:
    """The first bytes of each file, so many or fewer; None where there is no file that can be read."""
    asked = [
        (sftp.send(Ask.LSTAT, string(path)), sftp.send(Ask.OPEN, *open_file(path, READ)))
        for path, _ in wanted
    ]
    reading: list[int | None] = []
    for (looked, opened), (_, length) in zip(asked, wanted, strict=True):
        plain, handle = False, None
        with suppress(SftpStatus):
            plain = stat.S_ISREG(sftp.attributes(looked).mode or stat.S_IFREG)
        with suppress(SftpStatus):
            handle = sftp.handle(opened)
        if handle is None:
            reading.append(None)
            continue
        count = min(length, sftp.read_size)
        reading.append(sftp.send(Ask.READ, handle, struct.pack(">QI", 0, count)) if plain else None)
        sftp.forget(sftp.send(Ask.CLOSE, handle))
    for number in reading:
        yield None if number is None else _content(sftp, number)


def _content(sftp: Protocol, number: int) -> bytes | None:
    try:
        return sftp.reply(number)[2]
    except SftpStatus as e:
        return b"" if e.code == Code.EOF else None
