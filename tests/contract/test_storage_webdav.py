"""WebDAV storages pass the contract on real servers."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from scipion_cloud.errors import InvalidInput, StorageMissing, StorageTransient
from scipion_cloud.storage import Storage, open_storage
from scipion_cloud.testing.servers.davserver import PASSWORD, DavServer
from scipion_cloud.testing.servers.nginx_dav import nginx_dav
from scipion_cloud.testing.servers.rclone_dav import rclone_dav
from scipion_cloud.testing.servers.wsgidav import wsgidav
from scipion_cloud.testing.storage import StorageContract
from scipion_cloud.testing.storage.common import keys
from scipion_cloud.testing.storage.crowds import Crowds
from scipion_cloud.testing.storage.files import Files
from scipion_cloud.testing.storage.names import NAMES, use


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DavServer]:
    with nginx_dav(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.fixture(scope="module")
def lockless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DavServer]:
    with nginx_dav(tmp_path_factory.mktemp("lockless"), locks=False) as server:
        yield server


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DavServer]:
    with wsgidav(tmp_path_factory.mktemp("wsgidav")) as server:
        yield server


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DavServer]:
    with rclone_dav(tmp_path_factory.mktemp("rclone")) as server:
        yield server


def fresh(server: DavServer, name: str) -> Storage:
    """A folder of its own, which the first write makes with those above it."""
    return open_storage(f"{server.url}/a%20folder/{name}", server.credentials, retry=False)


# nginx's lists leave out what begins with a dot; what is known by name is there
LISTED = {id_: name for id_, name in NAMES.items() if not name.startswith(".")}
# wsgidav cuts the name that a file is moved to at these
UNCUT = {id_: name for id_, name in NAMES.items() if not set("?;") & set(name)}


class TestNginx(StorageContract):
    secrets = (PASSWORD,)

    @pytest.mark.parametrize("name", LISTED.values(), ids=LISTED.keys())
    def test_names(self, storage: Storage, name: str) -> None:
        use(storage, name)

    @pytest.mark.parametrize("name", sorted(set(NAMES.values()) - set(LISTED.values())))
    def test_hidden_names_are_kept_but_not_listed(self, storage: Storage, name: str) -> None:
        storage.write(f"a/{name}/{name}", b"1")
        storage.move(f"a/{name}/{name}", f"a/{name}/x")
        assert keys(storage, f"a/{name}") == {f"a/{name}/x"}
        assert storage.read_bytes(f"a/{name}/x") == b"1"
        assert keys(storage) == set()

    @pytest.fixture
    def storage(self, nginx: DavServer, tmp_path: Path) -> Iterator[Storage]:
        with fresh(nginx, tmp_path.name) as storage:
            assert storage.capabilities.exclusive_create
            yield storage


class TestNginxWithoutLocks(Files, Crowds):
    """The same without what is only of use with locks; names and folders do not depend on them."""

    secrets = (PASSWORD,)

    @pytest.fixture
    def storage(self, lockless: DavServer, tmp_path: Path) -> Iterator[Storage]:
        with fresh(lockless, tmp_path.name) as storage:
            assert not storage.capabilities.exclusive_create
            yield storage


class TestWsgidav(StorageContract):
    secrets = (PASSWORD,)

    @pytest.fixture
    def storage(self, python: DavServer, tmp_path: Path) -> Iterator[Storage]:
        with fresh(python, tmp_path.name) as storage:
            assert storage.capabilities.exclusive_create
            yield storage

    @pytest.mark.parametrize("name", UNCUT.values(), ids=UNCUT.keys())
    def test_names(self, storage: Storage, name: str) -> None:
        use(storage, name)

    @pytest.mark.parametrize("name", sorted(set(NAMES.values()) - set(UNCUT.values())))
    def test_names_that_it_would_cut_are_refused(self, storage: Storage, name: str) -> None:
        before = re.split("[?;]", name)[0]
        storage.write(before, b"precious")
        storage.write("other", b"1")
        calls: list[Callable[[], None]] = [
            lambda: storage.write(name, b"2"),
            lambda: storage.create(name, b"2"),
            lambda: storage.move("other", name),
        ]
        for call in calls:
            with pytest.raises(InvalidInput):
                call()
        assert storage.read_bytes(before) == b"precious"
        assert keys(storage) == {before, "other"}

    def test_readers_see_the_old_file_or_the_new_one(self, storage: Storage) -> None:
        """Nearly: it sends one file with the length of the other when one replaces the other just then.

        It removes the old one first: a reader that meets this gap again and again finds nothing.
        """
        storage.write("file", b"a" * 400_000)
        stop = threading.Event()
        seen: set[bytes] = set()

        def look() -> None:
            while not stop.is_set():
                with suppress(StorageTransient, StorageMissing):
                    seen.add(storage.read_bytes("file"))

        readers = [threading.Thread(target=look) for _ in range(3)]
        for reader in readers:
            reader.start()
        for n in range(12):
            storage.write("file", b"ab"[n % 2 : n % 2 + 1] * (400_000 + n))
        stop.set()
        for reader in readers:
            reader.join()
        assert seen
        assert all(set(one) in ({97}, {98}) and len(one) >= 400_000 for one in seen)


class TestRclone(Files):
    """A third server, with locks as the only thing that is exclusive."""

    secrets = (PASSWORD,)
    test_of_those_that_create_one_wins = Crowds.test_of_those_that_create_one_wins

    @pytest.fixture
    def storage(self, rclone: DavServer, tmp_path: Path) -> Iterator[Storage]:
        with fresh(rclone, tmp_path.name) as storage:
            assert storage.capabilities.exclusive_create
            yield storage
