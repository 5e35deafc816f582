"""The threads that do a list of tasks."""

import signal
import subprocess
import sys
import threading

import pytest

from scipion_cloud.sync.crew import run_all

PANIC = """
import resource, threading
from scipion_cloud.sync.crew import run_all

class PanicException(BaseException):
    "As PyO3's."

def panics():
    raise PanicException("the runtime is gone")

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
run_all([threading.Event().wait, panics], [], 4)  # the first one waits for ever
"""


@pytest.mark.parametrize("threads", [1, 2, 4, 9])
def test_each_task_is_done_once(threads: int) -> None:
    done: list[int] = []
    run_all(
        (lambda n=n: done.append(n) for n in range(100)),
        (lambda n=n: done.append(-n) for n in range(1, 9)),
        threads,
    )
    assert sorted(done) == [*range(-8, 0), *range(100)]


def test_the_first_error_stops_all() -> None:
    done: list[int] = []

    def fails() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        run_all([fails, *(lambda n=n: done.append(n) for n in range(1000))], (), 1)
    assert len(done) < 1000
    assert threading.active_count() < 10


def test_a_panic_ends_the_process_though_others_hang() -> None:
    done = subprocess.run([sys.executable, "-c", PANIC], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGABRT
    assert "the runtime is gone" in done.stderr
