"""One controller for each home; parts that fail stop no others."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.db import OperationalError

from scipion_cloud.controller.bell import Bell
from scipion_cloud.controller.lock import only_one
from scipion_cloud.controller.loop import Parts
from scipion_cloud.errors import SetupError


def test_a_second_controller_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from scipion_cloud.controller.lock import only_one\n"
        "with only_one(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(SetupError, match=f"process {other.pid}"), only_one(tmp_path):
            pass
        other.kill()
    with only_one(tmp_path):  # the kernel has freed what the dead one held
        pass


def test_a_part_that_fails_stops_no_other_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    trouble = [ValueError("broken")]

    def breaks() -> None:
        if trouble:
            raise trouble[0]

    parts = Parts({"first": breaks, "second": lambda: done.append("second")})
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            parts.tick()
        assert done == ["second"] * 5
        assert [r.message for r in caplog.records] == ["first: ValueError: broken"]
        trouble.clear()
        parts.tick()
    assert caplog.records[-1].message == "first: all is well again"


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    away = threading.Event()
    away.set()
    worked: list[int] = []

    def work() -> None:
        if away.is_set():
            raise OperationalError("the server closed the connection")
        worked.append(1)

    parts = Parts({"runs": work})
    parts.tick()
    parts.tick()
    assert "waiting for it" in caplog.text
    assert "Traceback" not in caplog.text
    away.clear()
    parts.tick()
    assert worked == [1]


def test_the_bell_ends_a_wait_even_if_it_was_rung_before_and_often() -> None:
    bell = Bell()
    assert not bell.wait(0)
    for _ in range(100_000):
        bell.ring()
    assert bell.wait(60)
    while bell.wait(0):
        pass
    assert not bell.stopped


def test_a_signal_handler_can_stop_the_loop() -> None:
    bell = Bell()
    before = signal.signal(signal.SIGUSR1, lambda *_: bell.stop())
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert bell.wait(60)
        assert bell.stopped
    finally:
        signal.signal(signal.SIGUSR1, before)
