"""Run a batch system's commands: never without a time limit, never with this process's own variables."""

import os
import subprocess
from collections.abc import Mapping, Sequence

from scipion_cloud.errors import JobError
from scipion_cloud.jobs.batch_system import NoAnswer

TIMEOUT = 20.0  # seconds
_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "TZ")


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    text: str = "",
    timeout: float = TIMEOUT,
) -> "subprocess.CompletedProcess[str]":
    """Run a command with `text` on its standard input, whatever its exit code.

    Raises NoAnswer if it takes longer than `timeout` seconds, JobError if it is not there.
    """
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    try:
        return subprocess.run(
            argv,
            input=text,
            env={"LANG": "C.UTF-8", **passed_on, **env},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"`{argv[0]}` gave no answer in {timeout:g} s.") from None
    except FileNotFoundError:
        raise JobError(
            f"`{argv[0]}` was not found. Install the batch system's commands, and have them on PATH."
        ) from None
    except OSError as e:
        raise NoAnswer(f"`{argv[0]}` could not be started: {e}") from e
