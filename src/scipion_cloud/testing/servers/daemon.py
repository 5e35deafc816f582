"""A server program of a test: started, waited for, and never left behind."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from scipion_cloud.errors import SetupError

START_WITHIN = 120.0  # s


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def daemon(
    command: Sequence[str | Path], log: Path, *, port: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in the folder of its log until the block ends; the kernel kills it if our thread dies.

    Waits until it listens on `port` of 127.0.0.1, if one is given. Raises SetupError with the end of its log
    if it does not start.
    """
    with log.open("wb") as output:
        words = ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)]
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=log.parent, env=env
        )
    try:
        if port is not None:
            _await(process, port, str(command[0]), log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], port: int, name: str, log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.02)
    raise SetupError(f"{Path(name).name} did not start: {log.read_text(errors='replace')[-2000:].strip()}")
