"""Files to a site and back: rsync over the site's connection, or into a folder of this machine.

By content: what is there already with the same bytes is not sent again. A file appears whole at its place,
and what arrived of a large one before the link broke is gone on with. Nothing of a project is ever deleted.
"""

import contextlib
import re
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.errors import InvalidInput, TransferError
from scipion_cloud.sites import reach
from scipion_cloud.sites.model import Site

PARTIAL = ".scipion-cloud-partial"
_PROGRESS = re.compile(rb"\s*([\d,]+)\s+(\d+)%\s+([\d.]+)([kMGT]?)B/s")
_UNITS = {b"": 1.0, b"k": 1e3, b"M": 1e6, b"G": 1e9, b"T": 1e12}
_FILES = ("--checksum", f"--partial-dir={PARTIAL}", "--perms", "--chmod=u+rwX", "--times", "--omit-dir-times")
_WILD = re.compile(r"[\\*?[]")
_GONE = re.compile(r'\[sender\] \w+ "([^"]*)" failed: No such file|file has vanished: "([^"]*)"')
_INCOMPLETE, _VANISHED = 23, 24  # exit codes of rsync
_BROKEN = (10, 12, 30, 35, 255)  # a socket (or the pipe to ssh), the stream, time-outs; ssh itself


@dataclass(frozen=True)
class Progress:
    """How far a transfer is."""

    done: int  # bytes, of what really has to be sent
    rate: float  # bytes/s


Told = Callable[[Progress], None]


class Stopped(Exception):
    """The transfer was ended because nobody wants it any more."""


@dataclass(frozen=True)
class Transfer:
    """The way of files to one site and back. Every method raises TransferError, or Stopped."""

    site: Site
    stop: threading.Event  # set by somebody else, it ends what goes on

    def send(self, root: Path, files: Iterable[str], place: str, told: Told) -> None:
        """Bring regular files of a folder to the same relative paths below `place` in the site's area.

        Raises InvalidInput when one of them is gone.
        """
        with _list(files) as names:
            words = [*_FILES, "--mkpath", "--from0", f"--files-from={names}", f"{root}/", self._at(place)]
            self._run(words, told)

    def send_folder(self, folder: Path, place: str) -> None:
        """Bring a small folder with all its regular files to `place`."""
        self._run(["--recursive", *_FILES, "--mkpath", f"{folder}/", self._at(place)])

    def fetch(self, place: str, folder: Path, told: Told) -> None:
        """Bring all that is below `place` in the site's area into a folder that is ours alone.

        What an rsync that was killed has left in it, under names of its own, is removed.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise TransferError(f"{folder} cannot be made: {e.strerror}.") from e
        words = ["--recursive", "--links", "--delete", *_FILES, self._at(place), f"{folder}/"]
        self._run(words, told, receives=True)

    def fetch_files(self, place: str, names: Sequence[str], folder: Path) -> None:
        """Bring those of these small files in `place` that are there into a folder here."""
        self._run(
            [*_FILES, *(self._at(place, name) for name in names), f"{folder}/"], may_miss=True, receives=True
        )

    def fetch_like(self, place: str, pattern: str, folder: Path) -> None:
        """Bring the small files right in `place` whose names fit a pattern into a folder here."""
        words = ["--recursive", "--times", f"--include={pattern}", "--exclude=*", self._at(place)]
        self._run([*words, f"{folder}/"], may_miss=True, receives=True)

    def remove(self, place: str, paths: Iterable[str]) -> None:
        """Remove files or folders below `place` in the site's area, and folders that are empty then."""
        rules: dict[str, None] = {}
        for path in paths:
            rule = ""
            for part in path.split("/"):
                if part in ("", ".", ".."):
                    raise InvalidInput(f"{path!r} is not a path below a folder.")
                rule += "/" + part
                rules[f"+ {_literal(rule)}"] = None
            rules[f"+ {_literal(rule, '/**')}"] = None
        if not rules:
            return
        with tempfile.TemporaryDirectory() as empty, _list([*rules, "- *"], "") as file:
            words = ["--recursive", "--delete", "--from0", f"--exclude-from={file}", "--mkpath"]
            self._run([*words, f"{empty}/", self._at(place)])

    def sizes(self, place: str, depth: int) -> dict[str, int]:
        """Bytes below each folder `depth` levels below `place`, by its path; of files above by theirs."""
        found: dict[str, int] = {}
        for line in self._run(["--recursive", self._at(place)], may_miss=True).splitlines():
            kind, size, *_when, name = [*line.split(None, 4), "", "", "", "", ""][:5]
            if kind[:1] == "-":
                key = "/".join(name.split("/")[:depth])
                found[key] = found.get(key, 0) + int(size)
        return found

    def _at(self, place: str, name: str = "") -> str:
        path = reach.rsync_path(self.site, reach.area(self.site) / place)
        return f"{path}/{name}"

    def _run(
        self,
        words: Sequence[str],
        told: Told | None = None,
        *,
        may_miss: bool = False,
        receives: bool = False,
    ) -> str:
        """Run rsync, and end it when it is to stop; what it printed. It dies with this thread."""
        argv = ["setpriv", "--pdeathsig", "KILL", "--", "rsync", "--no-human-readable", "--outbuf=N"]
        argv += ["--info=progress2"] if told else []
        if shell := reach.rsync_shell(self.site):
            argv += ["-e", shlex.join(shell)]
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [*argv, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if told else output,
                stderr=errors,  # a file: an ssh that stays for others holds it open
                start_new_session=True,
            )
            with process:
                watcher = threading.Thread(target=_end_when, args=(process, self.stop), daemon=True)
                watcher.start()
                if told and process.stdout:
                    _follow(process.stdout.fileno(), told)
                code = process.wait()
            watcher.join()
            errors.seek(0)
            output.seek(0)
            if self.stop.is_set():
                raise Stopped
            if code and not (may_miss and code == _INCOMPLETE):
                raise self._failed(code, errors.read().decode(errors="replace"), receives)
            return output.read().decode(errors="surrogateescape")

    def _failed(self, code: int, errors: str, receives: bool) -> Exception:
        """The error for a person; `receives`: files were coming here."""
        site = self.site.label
        lines = [line for line in errors.strip().splitlines() if "rsync error" not in line]
        if full := re.search(r".*(No space left on device|Disk quota exceeded).*", errors):
            where = "here" if receives else f"at {site}"
            return TransferError(f"The disk {where} is full; it goes on when there is room. {full[0][:300]}")
        if code in (_INCOMPLETE, _VANISHED) and (gone := _GONE.search(errors)):
            return InvalidInput(f"A file that is needed is gone: {gone[1] or gone[2]}")
        last = lines[-1][:300] if lines else "no reason is known"
        if code in _BROKEN:
            return TransferError(f"the link to {site} broke: {last}")
        return TransferError(f"rsync to or from {site} failed ({code}): {last}")


def _end_when(process: subprocess.Popen[bytes], stop: threading.Event) -> None:
    while process.poll() is None:
        if stop.wait(0.2):
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
            return


def _follow(stdout: int, told: Told) -> None:
    """Read rsync's progress until its end."""
    last = 0.0
    with open(stdout, "rb", buffering=0, closefd=False) as stream:
        while text := stream.read(65536):
            if time.monotonic() - last < 0.5:
                continue
            if found := list(_PROGRESS.finditer(text.replace(b"\r", b"\n"))):
                done, _percent, rate, unit = found[-1].groups()
                told(Progress(int(done.replace(b",", b"")), float(rate) * _UNITS[unit]))
                last = time.monotonic()


@contextlib.contextmanager
def _list(names: Iterable[str], before: str = "./") -> Iterator[str]:
    """A file of names as rsync reads it, each ended by a zero byte; `./` keeps it from seeing more."""
    with tempfile.NamedTemporaryFile() as file:
        for name in names:
            file.write(f"{before}{name}".encode(errors="surrogateescape") + b"\0")
        file.flush()
        yield file.name


def _literal(path: str, after: str = "") -> str:
    """A path as a pattern of rsync that means just this; a backslash escapes only where something is wild."""
    if after or _WILD.search(path.replace("\\", "")):
        path = _WILD.sub(r"\\\g<0>", path)
    return path + after
