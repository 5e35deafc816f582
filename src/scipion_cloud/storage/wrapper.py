"""A storage that passes everything on to another; wrappers change the calls that they are about."""

from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO

from scipion_cloud.storage.base import Capabilities, Stat, Storage


class Wrapper(Storage):
    """Passes everything on to `inner`."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def children(self, folder: str = "") -> Iterator[Stat]:
        return self.inner.children(folder)

    def walk(self, folder: str = "") -> Iterator[Stat]:
        return self.inner.walk(folder)

    def stat(self, key: str) -> Stat:
        return self.inner.stat(key)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self.inner.read(key, start, length)

    def write(
        self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
    ) -> None:
        self.inner.write(key, content, mtime=mtime, new=new)

    def create(self, key: str, content: bytes) -> None:
        self.inner.create(key, content)

    def move(self, source: str, target: str) -> None:
        self.inner.move(source, target)

    def remove(self, key: str) -> None:
        self.inner.remove(key)

    def make_folder(self, key: str) -> None:
        self.inner.make_folder(key)

    def remove_folder(self, key: str) -> None:
        self.inner.remove_folder(key)

    def symlink(self, key: str, target: bytes) -> None:
        self.inner.symlink(key, target)

    def readlink(self, key: str) -> bytes:
        return self.inner.readlink(key)

    def download(self, key: str, fd: int, start: int = 0, length: int | None = None) -> int:
        return self.inner.download(key, fd, start, length)

    def flush(self) -> None:
        self.inner.flush()

    def close(self) -> None:
        self.inner.close()
