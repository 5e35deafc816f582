"""How far a copy has come, in a small file that others read meanwhile."""

import contextlib
import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scipion_cloud.sync.progress import Progress

REPORT_FILE = "status.json"
_EVERY = 0.5  # seconds
_TOLD = 50  # problems with their texts; the rest is counted


class Report:
    """Written twice a second inside a `with` block, and at its end. Safe to use from many threads."""

    def __init__(self, folder: Path) -> None:
        self.progress = Progress()
        self.message = ""  # why it failed
        self._file = folder / REPORT_FILE
        self._lock = threading.Lock()
        self._problems: list[dict[str, str]] = []
        self._count = 0
        self._over = threading.Event()
        self._writer = threading.Thread(target=self._write_on, daemon=True)

    def problem(self, path: bytes, text: str) -> None:
        """Something was left out, or is not quite what it was."""
        with self._lock:
            self._count += 1
            if len(self._problems) < _TOLD:
                self._problems.append({"path": path[-500:].decode(errors="backslashreplace"), "text": text})

    def __enter__(self) -> Self:
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._writer.join()
        self._write()

    def _write_on(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):  # a full disk: the next one may succeed, the last one has to
                self._write()
            self._over.wait(_EVERY)

    def _write(self) -> None:
        new = self._file.with_name(f"{REPORT_FILE}.new")
        new.write_text(json.dumps(self._content()))
        new.replace(self._file)

    def _content(self) -> dict[str, Any]:
        progress = self.progress
        with self._lock:
            return {
                "files_done": progress.files_done,
                "files_total": progress.files_total,
                "bytes_done": progress.bytes_done,
                "bytes_total": progress.bytes_total,
                "rate": progress.rate,
                "seconds_left": progress.seconds_left,
                "problems": list(self._problems),
                "problems_total": self._count,
                "message": self.message,
            }


def read_report(folder: Path) -> dict[str, Any]:
    """What the job in a folder last told; empty if it has told nothing yet."""
    try:
        content: dict[str, Any] = json.loads((folder / REPORT_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return content
