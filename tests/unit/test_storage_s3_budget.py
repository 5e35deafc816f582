"""Shares of what may be in memory at a time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from scipion_cloud.storage.s3_budget import Budget


def test_never_more_than_all_of_it() -> None:
    budget, lock = Budget(10), threading.Lock()
    out, most = 0, 0

    def take(amount: int) -> None:
        nonlocal out, most
        with budget.share(amount):
            with lock:
                out += amount
                most = max(most, out)
            threading.Event().wait(0.001)
            with lock:
                out -= amount

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(take, [1 + n % 10 for n in range(200)]))
    assert out == 0
    assert 5 < most <= 10


def test_more_than_there_is_waits_for_all() -> None:
    budget = Budget(10)
    with budget.share(1000):
        pass
    with budget.share(5), budget.share(5):
        pass


def test_large_shares_are_not_passed_by() -> None:
    budget, order = Budget(10), []
    asked = threading.Semaphore(0)

    def take(amount: int) -> None:
        asked.release()
        with budget.share(amount):
            order.append(amount)

    with ThreadPoolExecutor(2) as pool:
        with budget.share(5):
            large = pool.submit(take, 10)
            asked.acquire()
            while not budget._asking:
                threading.Event().wait(0.001)
            small = pool.submit(take, 1)
            asked.acquire()
            while len(budget._asking) < 2:
                threading.Event().wait(0.001)
            assert not order
        large.result(60)
        small.result(60)
    assert order == [10, 1]


def test_what_fails_gives_its_share_back() -> None:
    budget = Budget(10)
    with pytest.raises(ValueError, match="x"), budget.share(10):
        raise ValueError("x")
    with budget.share(10):
        pass
