"""Short-lived children of a process that has imported Scipion once: each call gets a fresh, cheap copy of it.

Scipion changes the working folder, caches connections and keeps state in modules; a child takes all that
with it when it ends.
"""

import ctypes
import json
import os
import signal
import sys
import tempfile
import traceback

import psutil

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class ChildError(Exception):
    """What a child raised, or how it died."""


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however it ends. Survives exec, not fork."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def in_child(function, *args):
    """Call `function(*args)` in a child, which cannot be interrupted, and return its JSON value.

    Raises ChildError with the text of what the function raised.
    """
    with tempfile.TemporaryFile("w+") as answer:
        pid = start_child(_answer, answer, function, args)
        code = wait_for(pid)
        answer.seek(0)
        text = answer.read()
    if not text:
        raise ChildError(f"{function.__name__} broke off ({describe_exit(code)}).")
    reply = json.loads(text)
    if "error" in reply:
        raise ChildError(reply["error"])
    return reply["value"]


def _answer(answer, function, args) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it takes milliseconds and leaves the project sound
    try:
        reply = {"value": function(*args)}
    except (Exception, SystemExit) as e:  # noqa: BLE001 - the parent gets it
        traceback.print_exc()
        reply = {"error": str(e) or type(e).__name__}
    json.dump(reply, answer)
    answer.flush()


def start_child(function, *args) -> int:
    """Fork a child that calls `function(*args)` and ends; returns its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        die_with_parent()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if os.getppid() != parent:  # it died before we asked the kernel
            os._exit(1)
        function(*args)
        code = 0
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    except BaseException:  # noqa: BLE001 - nothing may return into the parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait_for(pid: int) -> int:
    """Wait for a child; its exit code, or minus the signal that ended it."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def kill_tree(pid: int) -> None:
    """Kill a child and everything below it; no error if it has gone already."""
    try:
        process = psutil.Process(pid)
        processes = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in processes:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
