"""Slow work beside the tick."""

import threading
import time

import pytest

from scipion_cloud.controller.background import Background


def wait_for(background: Background, key: str, work) -> object:
    for _ in range(5000):
        if (result := background.poll(key, work)) is not None:
            return result
        time.sleep(0.01)
    raise AssertionError("the work never ended")


def test_a_result_is_given_once_and_the_work_done_once_until_then() -> None:
    calls: list[int] = []
    background = Background()

    def work() -> str:
        calls.append(1)
        return "done"

    assert wait_for(background, "a", work) == "done"
    assert calls == [1]
    assert wait_for(background, "a", work) == "done"
    assert calls == [1, 1]


def test_an_error_reaches_the_one_who_polls_and_the_work_can_be_tried_again() -> None:
    background = Background()

    def broken() -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        wait_for(background, "a", broken)
    assert wait_for(background, "a", lambda: "now") == "now"


def test_poll_never_waits_even_when_all_turns_are_taken() -> None:
    background = Background(at_once=1)
    gate = threading.Event()
    assert background.poll("slow", lambda: gate.wait(60)) is None
    assert background.poll("next", lambda: "soon") is None
    gate.set()
    assert wait_for(background, "next", lambda: "never called") == "soon"


def test_what_the_work_needs_is_collected_by_the_caller_and_only_when_it_begins() -> None:
    background = Background()
    collected: list[int] = []

    def begin():
        collected.append(threading.get_ident())
        return threading.get_ident

    while (worker := background.poll_with("a", begin)) is None:
        time.sleep(0.01)
    assert collected == [threading.get_ident()]
    assert worker != threading.get_ident()
