"""Running other programs while a person watches."""

import os
import shlex
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scipion_cloud.errors import SetupError

Report = Callable[[str], None]  # takes one line that tells what is going on now
TAIL = 12  # lines of a failed program's output that are worth showing


def stream(
    argv: Sequence[str | Path],
    report: Report,
    *,
    what: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    tail: int = TAIL,
) -> str:
    """Run a program, report each line that it writes, and return its last `tail` lines.

    `what` names the work in an error, and `env` is added to our own environment.
    Raises SetupError with the program's last lines if it fails. The program does not outlive an interruption.
    """
    command = [str(word) for word in argv]
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as e:
        raise SetupError(f"{what}: {command[0]} could not be started ({e.strerror}).") from e
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    kept: deque[str] = deque(maxlen=tail)
    try:
        with process.stdout as lines:
            for line in lines:
                if text := line.strip():
                    kept.append(text)
                    report(text)
        code = process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    output = "\n".join(kept)
    if code:
        raise SetupError(f"{what} failed: `{shlex.join(command)}` ended with {code}:\n{output}")
    return output


def as_root(argv: Sequence[str]) -> list[str]:
    """`argv` as an administrator runs it: as it stands for root, else through sudo.

    Raises SetupError with the command for an administrator where sudo is not to be had.
    """
    if os.geteuid() == 0:
        return list(argv)
    if shutil.which("sudo"):
        quiet = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
        if quiet or subprocess.run(["sudo", "-v"], check=False).returncode == 0:
            return ["sudo", *argv]
    raise SetupError(f"This needs an administrator. Ask one to run:  {shlex.join(argv)}")
