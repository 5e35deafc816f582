"""Keeps the process that makes pictures (see `painting`) and speaks with it without ever waiting."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Picture:
    """A request for the pictures of one movie. All paths are absolute."""

    movie: int  # primary key
    stem: str
    run_dir: str  # Scipion's folder of the alignment
    source: str  # the movie as it was uploaded
    gain: str  # "" without one
    pixel_size: float  # A, of the movie
    binning: float  # of the micrograph against the movie
    gain_rotation: int  # as RELION's --gain_rot
    gain_flip: int  # as RELION's --gain_flip
    folder: str  # appears when all that is asked for is in it
    details: bool  # not only the thumbnail


class Painter:
    """A process that is started when it is needed, and again when it died."""

    def __init__(self) -> None:
        self.asked: list[Picture] = []  # in the order of the answers
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def ask(self, picture: Picture) -> None:
        """Have the pictures of a movie made after those that were asked for before."""
        process = self._process or self._start()
        self.asked.append(picture)
        assert process.stdin is not None  # noqa: S101 - a pipe, see _start
        with contextlib.suppress(BrokenPipeError):  # it has died; `collect` finds out
            process.stdin.write(json.dumps(asdict(picture)).encode() + b"\n")

    def collect(self) -> Iterator[tuple[Picture, str | None, bool]]:
        """What was done since the last call: request, error or None, and whether the process died of it."""
        if self._process is None:
            return
        assert self._process.stdout is not None  # noqa: S101
        ended = False
        while True:
            try:
                data = os.read(self._process.stdout.fileno(), 65536)
            except BlockingIOError:
                break
            if not data:
                ended = True
                break
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            yield self.asked.pop(0), json.loads(line)["error"] or None, False
        if ended:
            code = self.close()
            suspect, self.asked = self.asked[:1], []  # the others are asked for again
            for picture in suspect:
                yield picture, f"the program that makes them ended (exit code {code}).", True

    def close(self) -> int | None:
        """End the process; returns its exit code if there was one."""
        process, self._process, self._rest = self._process, None, b""
        if process is None:
            return None
        process.kill()
        with process:
            pass
        return process.returncode

    def _start(self) -> subprocess.Popen[bytes]:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scipion_cloud.controller.painting"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # nothing is left to be written when it has died
            env={**os.environ, **one_thread},
            start_new_session=True,  # niceness may count within a session only
        )
        assert self._process.stdout is not None  # noqa: S101
        os.set_blocking(self._process.stdout.fileno(), False)
        return self._process
