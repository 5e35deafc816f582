"""Many at the same time."""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from scipion_cloud.errors import StorageExists, StorageTransient
from scipion_cloud.storage import Storage
from scipion_cloud.testing.storage.common import at_once, keys, noise

THREADS = 16


def race(tasks: list[Callable[[], None]]) -> list[bool]:
    """Do all at the same moment, each in a thread of its own; which were not refused as existing."""
    start = threading.Barrier(len(tasks))

    def run(task: Callable[[], None]) -> bool:
        start.wait(60)
        try:
            task()
        except StorageExists:
            return False
        return True

    return at_once([partial(run, task) for task in tasks], len(tasks))


class Crowds:
    """Many at the same time."""

    def test_of_those_that_create_one_wins(self, storage: Storage) -> None:
        for n in range(5):
            key = f"locks/{n}"
            won = race([partial(storage.create, key, noise(2000, i)) for i in range(THREADS)])
            winners = [i for i, one in enumerate(won) if one]
            assert winners
            assert len(winners) == 1 or not storage.capabilities.exclusive_create
            assert storage.read_bytes(key) in [noise(2000, i) for i in winners]
        assert keys(storage) == {f"locks/{n}" for n in range(5)}

    def test_a_created_file_is_whole_at_once(self, storage: Storage) -> None:
        contents = {noise(200_000, i) for i in range(4)}
        seen: list[bytes] = []
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                if "a/file" in {stat.key for stat in storage.children("a")}:
                    seen.append(storage.read_bytes("a/file"))

        reader = threading.Thread(target=look)
        reader.start()
        try:
            race([partial(storage.create, "a/file", content) for content in contents])
        finally:
            done.set()
            reader.join()
        assert {*seen, storage.read_bytes("a/file")} <= contents

    def test_files_are_written_and_read_by_many(self, storage: Storage) -> None:
        def work(n: int) -> None:
            for i in range(5):
                key, content = f"a/{n % 3}/{n}-{i}", noise(1000 * i, n)
                storage.write(key, b"old")
                storage.write(key, content)
                assert storage.read_bytes(key) == content
                storage.move(key, f"b/{n % 3}/{n}-{i}")
            storage.remove(f"b/{n % 3}/{n}-0")
            storage.make_folder("a/0/made")

        at_once([partial(work, n) for n in range(THREADS)])
        assert keys(storage) == {f"b/{n % 3}/{n}-{i}" for n in range(THREADS) for i in range(1, 5)}

    def test_readers_see_the_old_file_or_the_new_one(self, storage: Storage) -> None:
        versions = [bytes([65 + n]) * (400_000 + 1000 * n) for n in range(4)]
        storage.write("file", versions[0])
        done = threading.Event()

        def look() -> int:
            looks = 0
            while not done.is_set() or not looks:
                try:
                    assert storage.read_bytes("file") in versions
                    looks += 1
                except StorageTransient:  # it may say so; a mixture it may not give
                    continue
            return looks

        def change(n: int) -> int:
            done = 0
            for i in range(100):
                with suppress(StorageTransient):  # writers too
                    storage.write("file", versions[(n + i) % 4])
                    done += 1
                if done == 6:
                    break
            return done

        def change_all() -> int:
            try:
                assert at_once([partial(change, n) for n in range(3)]) == [6, 6, 6]
            finally:
                done.set()
            return 1

        assert all(at_once([change_all, look, look, look]))
        assert storage.read_bytes("file") in versions
        assert keys(storage) == {"file"}
