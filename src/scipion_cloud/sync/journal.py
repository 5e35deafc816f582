"""A file to which rows are added one by one, for what must be known again after a kill."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack

_pack: Callable[[Any], bytes] = msgpack.packb

BOOT = Path("/proc/sys/kernel/random/boot_id")


class Journal:
    """Rows under a header that says what they belong to. Safe to use from many threads.

    A row is in the kernel's hands when `add` returns: it survives kill -9, but not a power cut. So what was
    written before the machine was started last is not read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def read(self, header: Mapping[str, Any]) -> Iterator[list[Any]]:
        """The rows added under this header since the machine was started; a last one cut off is left out."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            unpacker = msgpack.Unpacker(file, max_buffer_size=1 << 30)
            try:
                if next(unpacker, None) == self._head(header):
                    yield from unpacker
            except (msgpack.UnpackException, ValueError):
                return

    def start(self, header: Mapping[str, Any]) -> None:
        """Begin anew under this header, or go on if it is the one that the file has. Raises OSError."""
        self.close()
        size = self._whole(header)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o600)
        os.ftruncate(self._fd, size)
        if not size:
            os.write(self._fd, msgpack.packb(self._head(header)))

    def add(self, *row: Any) -> None:
        """Add a row. Raises OSError."""
        self.add_all((row,))

    def add_all(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows, all at once. Raises OSError."""
        assert self._fd is not None, "start() comes first"  # noqa: S101
        os.write(self._fd, b"".join(map(_pack, rows)))  # one call with O_APPEND: rows of threads do not mix

    def close(self) -> None:
        """Let go of the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def remove(self) -> None:
        """Forget all rows."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _head(self, header: Mapping[str, Any]) -> dict[str, Any]:
        return {**header, "boot": BOOT.read_text().strip()}

    def _whole(self, header: Mapping[str, Any]) -> int:
        """Where the last whole row under this header ends; 0 if there is none."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return 0
        with file:
            unpacker = msgpack.Unpacker(file, max_buffer_size=1 << 30)
            end = 0
            try:
                if next(unpacker, None) == self._head(header):
                    end = unpacker.tell()
                    for _ in unpacker:
                        end = unpacker.tell()
            except (msgpack.UnpackException, ValueError):
                pass
            return end
