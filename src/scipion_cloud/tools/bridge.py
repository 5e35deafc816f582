"""Calls into the Scipion environment: one short-lived process each, JSON in and out."""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from scipion_cloud.config import Config, get_config
from scipion_cloud.errors import BridgeError, SetupError
from scipion_cloud.tools.environment import scipion_environ

DEFAULT_TIMEOUT = 120.0  # s; a call takes 2-3 s on a quiet machine
_FULL = re.compile(r"No space left on device|disk is full|Errno (?:28|122)\b")
_TAIL = 2000  # characters of a failed worker's output that go into the error


def call(
    op: str,
    project: Path | None = None,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    config: Config | None = None,
    **args: Any,
) -> dict[str, Any]:
    """Run operation `op` of `scipion_cloud_em.worker` on a project's folder and return its answer.

    Operations: `create_project(comment)`, `settle(protocols)`, `describe_protocol(name)`, `versions()`.
    Calls on one project wait for each other. Raises BridgeError with Scipion's own message, or after
    `timeout` seconds, when the worker and all that it started have been killed; SetupError without a Scipion.
    """
    config = config or get_config()
    python = config.scipion_python
    if not python.exists():
        raise SetupError("Scipion is not installed. Run `scipion-cloud up`, which installs it.")
    request = {"op": op, "project": str(project) if project else None, "args": args}
    # A file, not a pipe: a long answer would fill a pipe while we wait for the worker to end.
    with tempfile.TemporaryFile() as answer:
        process = subprocess.Popen(
            [python, "-m", "scipion_cloud_em.worker", str(answer.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env=scipion_environ(config, config.projects),
            pass_fds=[answer.fileno()],
            start_new_session=True,  # its own group, to be killed as one
        )
        with process:
            try:
                _, errors = process.communicate(json.dumps(request).encode(), timeout)
            except subprocess.TimeoutExpired:
                _kill(process)
                raise BridgeError(
                    f"Scipion did not answer '{op}' within {timeout:.0f} s; try again later."
                ) from None
            except BaseException:
                _kill(process)
                raise
        answer.seek(0)
        return _result(op, answer.read(), errors.decode(errors="replace"))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _result(op: str, reply: bytes, errors: str) -> dict[str, Any]:
    try:
        answer = json.loads(reply)
    except ValueError:
        raise BridgeError(f"Scipion broke off during '{op}':\n{errors[-_TAIL:].strip()}") from None
    if "error" in answer:
        error = str(answer["error"])
        if _FULL.search(error):
            error = "The server's disk is full. Ask your operator for space, then try again."
        raise BridgeError(error)
    result: dict[str, Any] = answer["result"]
    return result
