"""Listings by SFTP: many folders at a time on one connection, attributes along with the names."""

import stat
from collections.abc import Sequence

from scipion_cloud.storage.sftp_protocol import Ask, Attributes, Code, Protocol, SftpStatus, string

PAGES_AHEAD = 2  # requests under way for one folder; OpenSSH tells 100 names in each reply

Entry = tuple[bytes, Attributes]


def list_folders(sftp: Protocol, paths: Sequence[bytes], *, follow: bool = False) -> list[list[Entry]]:
    """What stands in each of these folders.

    A folder that is missing, or is no folder, is empty; so is a symlink to one unless `follow`. Raises
    SftpStatus, with the path, when all requests are answered.
    """
    look = Ask.STAT if follow else Ask.LSTAT
    asked = [(sftp.send(look, string(path)), sftp.send(Ask.OPENDIR, string(path))) for path in paths]
    found: list[list[Entry]] = []
    refused: SftpStatus | None = None
    handles = []
    for path, (looked, opened) in zip(paths, asked, strict=True):
        handle, refusal = _handle(sftp, looked, opened)
        handles.append(handle)
        if refusal:
            refusal.path = path
            refused = refused or refusal
    pages = [_ask_pages(sftp, handle) for handle in handles]
    for path, handle, numbers in zip(paths, handles, pages, strict=True):
        entries: list[Entry] = []
        found.append(entries)
        try:
            while numbers:
                entries += sftp.names(numbers.pop(0))
                numbers.append(sftp.send(Ask.READDIR, handle))
        except SftpStatus as e:
            if e.code != Code.EOF:
                e.path = path
                refused = refused or e
        if handle:
            sftp.forget(*numbers, sftp.send(Ask.CLOSE, handle))
    if refused:
        raise refused
    return [[entry for entry in entries if entry[0] not in (b".", b"..")] for entries in found]


def _ask_pages(sftp: Protocol, handle: bytes) -> list[int]:
    return [sftp.send(Ask.READDIR, handle) for _ in range(PAGES_AHEAD)] if handle else []


def _handle(sftp: Protocol, looked: int, opened: int) -> tuple[bytes, SftpStatus | None]:
    """The handle of a folder; empty where there is none to list, with the refusal if that is an error."""
    mode, handle, refusal = sftp.opened(looked, opened)
    if mode is not None and not stat.S_ISDIR(mode):
        refusal = None
        if handle:
            sftp.forget(sftp.send(Ask.CLOSE, handle))
            handle = b""
    if refusal and refusal.code == Code.NO_SUCH_FILE:
        refusal = None
    return handle, refusal
