"""SFTP: a folder on a server that one reaches with ssh.

With OpenSSH's extensions a file is replaced in one step, created exclusively and whole, and on the server's
disk when `flush` returns. Servers without them are used as well as they allow; `capabilities` tells.
"""

import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from secrets import token_hex
from typing import BinaryIO
from urllib.parse import SplitResult, unquote, unquote_to_bytes

from scipion_cloud.errors import (
    InvalidInput,
    StorageDenied,
    StorageError,
    StorageExists,
    StorageFull,
    StorageMissing,
)
from scipion_cloud.storage.base import Capabilities, Kind, NewFile, Stat, Storage, check_key, size_of
from scipion_cloud.storage.sftp_batches import Small, read_files, write_files
from scipion_cloud.storage.sftp_files import read_file, seconds, write_file
from scipion_cloud.storage.sftp_listing import list_folders
from scipion_cloud.storage.sftp_names import (
    OPENSSH,
    in_folder,
    is_full,
    link,
    make_folder,
    parent,
    rename,
    rename_unless_there,
    sync_folders,
    there,
)
from scipion_cloud.storage.sftp_pool import Pool
from scipion_cloud.storage.sftp_protocol import Ask, Attributes, Code, SftpStatus, string
from scipion_cloud.storage.sftp_ssh import Connection, Server, server_of
from scipion_cloud.storage.sftp_ssh import connect as connect_ssh

TEMPORARY = b".scipion-cloud/tmp"
LONGEST_PATH = 4095  # bytes; Linux takes no longer ones
LONGEST_NAME = 255  # bytes
PARALLEL = 4  # connections with a batch each: the server brings files of several to its disk at once
BATCH = 64  # small files on one connection; servers have a limit of open ones
FOLDERS_AT_ONCE = 16  # listed on one connection
FULL = "The SFTP server's disk is full. Make room there, then try again."


def connect(url: SplitResult, credentials: Mapping[str, str]) -> Storage:
    """The storage at sftp://[user@]host[:port]/folder; /~/folder is one in the account's home."""
    user = unquote(url.username) if url.username is not None else None
    server = server_of(url.hostname or "", url.port, user, credentials)
    root = unquote_to_bytes(url.path).rstrip(b"/") or b"/"
    if b"\0" in root:
        raise InvalidInput(errors={"url": "A folder's name cannot have the byte 0."})
    if root == b"/~" or root.startswith(b"/~/"):
        root = root[3:] or b"."
    return Sftp(url.geturl(), server, root)


class Sftp(Storage):
    """A folder on an SFTP server.

    A write is fsync'd before it counts, where the server can; the folders that names were put in are fsync'd
    by `flush`. Times are kept to the second.
    """

    def __init__(self, url: str, server: Server, root: bytes) -> None:
        self._url = url
        self._root = root
        self._pool = Pool(lambda: connect_ssh(server))
        self._changed: set[bytes] = set()  # folders whose names are not known to be on the disk
        self._changing = threading.Lock()
        self._extensions: frozenset[bytes] | None = None
        self._no_links = False

    def __repr__(self) -> str:
        return f"Sftp({self._url!r})"

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        """What the server's extensions promise. Raises what any call may raise: it may have to connect."""
        extensions = self._extensions
        if extensions is None:
            with self._pool.use() as sftp:
                extensions = self._extensions = frozenset(sftp.extensions)
        openssh = extensions >= OPENSSH
        return Capabilities(
            exclusive_create=openssh and not self._no_links,
            rename=True,
            symlinks=openssh,
            folders=True,
            ranges=True,
            mtime=True,
            byte_names=openssh,
            max_key=LONGEST_PATH - len(self._root) - 1,
            max_name=LONGEST_NAME,
            parallel=PARALLEL,
            batch=BATCH,
        )

    # --- paths

    def _path(self, key: str) -> bytes:
        """The path of a key. Raises InvalidInput."""
        try:
            name = check_key(key).encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as e:
            raise InvalidInput(f"{key!r} cannot be a key in a storage: it stands for no bytes.") from e
        path = self._join(name)
        if len(path) > LONGEST_PATH or any(len(part) > LONGEST_NAME for part in name.split(b"/")):
            raise InvalidInput(f"{key[:80]!r}... is too long for a server: {LONGEST_NAME} bytes for a name.")
        return path

    def _join(self, name: bytes) -> bytes:
        return (b"/" if self._root == b"/" else self._root + b"/") + name

    def _folder(self, key: str) -> bytes:
        return self._path(key) if key else self._root

    # --- looking

    def stat(self, key: str) -> Stat:
        path = self._path(key)
        with self._told(key), self._pool.use() as sftp:
            found = self._stat(key, sftp.attributes(sftp.send(Ask.LSTAT, string(path))))
        if found is None:
            raise StorageError(f"{key!r} is neither a file nor a folder nor a symlink.")
        return found

    def _stat(self, key: str, attributes: Attributes) -> Stat | None:
        """None for a socket, a pipe or a device."""
        kind = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.LINK}.get(
            stat.S_IFMT(attributes.mode or stat.S_IFREG)
        )
        if kind is None:
            return None
        size = attributes.size or 0 if kind is Kind.FILE else 0
        return Stat(key, kind, size, datetime.fromtimestamp(attributes.mtime or 0, UTC))

    def children(self, folder: str = "") -> Iterator[Stat]:
        self._folder(folder)
        yield from self._list([folder])

    def walk(self, folder: str = "") -> Iterator[Stat]:
        self._folder(folder)
        ahead = [folder]
        while ahead:
            now, ahead = ahead[-FOLDERS_AT_ONCE:], ahead[:-FOLDERS_AT_ONCE]
            for one in self._list(now):
                if one.kind is Kind.FOLDER:
                    ahead.append(one.key)
                else:
                    yield one

    def _list(self, folders: list[str]) -> Iterator[Stat]:
        """What stands in all of these. Only the storage's own folder may be a symlink to one."""
        paths = [self._folder(folder) for folder in folders]
        with self._told(folders[0]), self._pool.use() as sftp:
            listings = list_folders(sftp, paths, follow=folders == [""])
        for folder, entries in zip(folders, listings, strict=True):
            for name, attributes in entries:
                key = name.decode("utf-8", "surrogateescape")
                key = f"{folder}/{key}" if folder else key
                found = self._stat(key, attributes) if attributes.mode is not None else self.stat(key)
                if found is not None:
                    yield found

    # --- content

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self._read(key, self._path(key), start, length)

    def _read(self, key: str, path: bytes, start: int, length: int | None) -> Iterator[bytes]:
        with self._told(key):
            yield from read_file(self._pool, path, start, length)

    def write(
        self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
    ) -> None:
        path = self._path(key)
        size = size_of(content)
        with self._told(key), self._pool.use() as sftp:
            if new:
                self._put(sftp, path, content, size, mtime)
            else:
                with self._temporary(sftp) as temporary:
                    self._put(sftp, temporary, content, size, mtime)
                    self._note(path, *rename(sftp, temporary, path))
        self._note(path)

    def write_new(self, files: Sequence[NewFile]) -> None:
        small = [Small(self._path(file.key), file.content, seconds(file.mtime)) for file in files]
        with self._told(""), self._pool.use() as sftp:
            try:
                self._note(*write_files(sftp, small))
            except SftpStatus as e:
                if e.code == Code.FAILURE and is_full(sftp, self._root, sum(len(f.content) for f in files)):
                    raise StorageFull(FULL) from e
                raise
        self._note(*(file.path for file in small))

    def read_small(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        paths = [(self._path(key), length) for key, length in wanted]
        with self._told(""), self._pool.use() as sftp:
            return list(read_files(sftp, paths))

    def create(self, key: str, content: bytes) -> None:
        path = self._path(key)
        with self._told(key), self._pool.use() as sftp, self._temporary(sftp) as temporary:
            self._put(sftp, temporary, content, len(content), None)
            try:
                self._note(*in_folder(sftp, path, lambda: self._name(sftp, temporary, path)))
            except SftpStatus as e:
                if there(sftp, path):
                    raise StorageExists(f"{key!r} exists already.") from e
                raise
        self._note(path)

    def _put(
        self, sftp: Connection, path: bytes, content: BinaryIO | bytes, size: int, mtime: datetime | None
    ) -> None:
        """Write a file in place."""
        try:
            self._note(*in_folder(sftp, path, lambda: write_file(sftp, path, content, size, mtime)))
        except SftpStatus as e:
            if e.code == Code.FAILURE and is_full(sftp, self._root, size):
                raise StorageFull(FULL) from e
            raise

    @contextmanager
    def _temporary(self, sftp: Connection) -> Iterator[bytes]:
        """The path for a file that is to be moved to its place; not there any more if that failed."""
        path = self._join(TEMPORARY + b"/" + token_hex(12).encode())
        try:
            yield path
        except (SftpStatus, StorageError, OSError):
            with suppress(SftpStatus):
                sftp.ask(Ask.REMOVE, string(path))
            raise

    def _name(self, sftp: Connection, temporary: bytes, path: bytes) -> None:
        """Give a whole file its name if nothing else has it. Raises SftpStatus."""
        if sftp.extensions.keys() >= OPENSSH and not self._no_links:
            if link(sftp, temporary, path):
                return
            self._no_links = True  # of that file system; OpenSSH's rename there looks first, then replaces
        rename_unless_there(sftp, temporary, path)

    # --- names

    def move(self, source: str, target: str) -> None:
        old, new = self._path(source), self._path(target)
        with self._told(source), self._pool.use() as sftp:
            if old == new:
                sftp.ask(Ask.LSTAT, string(old))
                return
            self._note(old, new, *rename(sftp, old, new))

    def remove(self, key: str) -> None:
        path = self._path(key)
        with self._told(key), self._pool.use() as sftp:
            try:
                sftp.ask(Ask.REMOVE, string(path))
            except SftpStatus as e:
                if e.code != Code.NO_SUCH_FILE:
                    raise
        self._note(path)

    def symlink(self, key: str, target: bytes) -> None:
        path = self._path(key)
        if not target or b"\0" in target:
            raise InvalidInput("A symlink has to say something, and cannot say the byte 0.")
        self._needs_symlinks()
        with self._told(key), self._pool.use() as sftp:
            # OpenSSH takes the two the other way round than the draft has them
            said = string(target)
            try:
                act = partial(sftp.ask, Ask.SYMLINK, said, string(path))
                self._note(path, *in_folder(sftp, path, act))
            except SftpStatus as e:
                if e.code != Code.FAILURE or not there(sftp, path):
                    raise
                with self._temporary(sftp) as temporary:
                    act = partial(sftp.ask, Ask.SYMLINK, said, string(temporary))
                    self._note(*in_folder(sftp, temporary, act))
                    self._note(path, *rename(sftp, temporary, path))

    def readlink(self, key: str) -> bytes:
        path = self._path(key)
        self._needs_symlinks()
        with self._told(key), self._pool.use() as sftp:
            return sftp.names(sftp.send(Ask.READLINK, string(path)))[0][0]

    def _needs_symlinks(self) -> None:
        if not self.capabilities.symlinks:
            raise NotImplementedError(f"{self._url} holds no symlinks.")

    def make_folder(self, key: str) -> None:
        path = self._path(key)
        with self._told(key), self._pool.use() as sftp:
            self._note(*make_folder(sftp, path))

    def remove_folder(self, key: str) -> None:
        path = self._path(key)
        with self._told(key), self._pool.use() as sftp:
            try:
                sftp.ask(Ask.RMDIR, string(path))
            except SftpStatus as e:
                if e.code not in (Code.NO_SUCH_FILE, Code.FAILURE):  # not there, or not empty
                    raise
        self._note(path)

    # --- the disk

    def _note(self, *paths: bytes) -> None:
        """Names have come or gone in the folders of these."""
        with self._changing:
            self._changed.update(map(parent, paths))

    def flush(self) -> None:
        with self._changing:
            changed, self._changed = self._changed, set()
        if not changed:
            return
        try:
            with self._told(""), self._pool.use() as sftp:
                sync_folders(sftp, changed)
        except StorageError:
            with self._changing:
                self._changed |= changed
            raise

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Refusals of the server as errors of ours."""
        try:
            yield
        except SftpStatus as e:
            what = repr(e.path.decode(errors="replace")) if e.path else repr(key or "the folder")
            if e.code == Code.NO_SUCH_FILE:
                raise StorageMissing(f"There is no {what} on the SFTP server.") from e
            if e.code == Code.PERMISSION_DENIED:
                raise StorageDenied(
                    f"The SFTP server denies access to {what}. Check the permissions of this account there."
                ) from e
            raise StorageError(f"The SFTP server refuses {what}: {e}.") from e
