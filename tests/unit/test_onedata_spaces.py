"""Onedata: spaces, providers, tokens, and two providers that make the same file; on the fake."""

import logging
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from scipion_cloud.errors import (
    InvalidInput,
    StorageDenied,
    StorageError,
    StorageExists,
    StorageMissing,
    StorageTransient,
)
from scipion_cloud.storage import Storage, open_storage
from scipion_cloud.storage.onedata import list_spaces
from scipion_cloud.storage.onedata_zone import Provider, Space, choose_provider
from scipion_cloud.testing.servers.onedata import TOKEN, OnedataFake, Scope, onedata_fake
from scipion_cloud.testing.servers.onedata_tree import Node, Refused


@pytest.fixture
def fake() -> Iterator[OnedataFake]:
    with onedata_fake() as fake:
        yield fake


def opened(fake: OnedataFake, path: str = "space/p", token: str = TOKEN, provider: str = "") -> Storage:
    return open_storage(fake.url(path), {"token": token, "provider": provider}, retry=False)


def folder(fake: OnedataFake, path: str) -> Node:
    return fake.tree.find(fake.tree.nodes["5pace1d"], [part.encode() for part in path.split("/")])


def test_the_spaces_of_a_token(fake: OnedataFake) -> None:
    told = list_spaces(f"onedata+http://{fake.host}", {"token": TOKEN})
    assert [(id_, name) for id_, name, _ in told] == [
        ("51ngle", "my data (2026)"),
        ("5pace1d", "space"),
        ("tw1n0001", "twins"),
        ("tw1n0002", "twins"),
    ]
    assert {domain for _, _, domains in told for domain in domains} == {fake.host}
    with pytest.raises(StorageDenied, match="access token"):
        list_spaces(f"onedata+http://{fake.host}", {"token": "none"})


def test_a_space_by_name_or_id(fake: OnedataFake) -> None:
    with opened(fake, "my data (2026)/x") as named, opened(fake, "51ngle/x") as numbered:
        named.write("a", b"1")
        assert numbered.read_bytes("a") == b"1"
        assert named.url == f"onedata+http://{fake.host}/my%20data%20%282026%29/x"
    with opened(fake, "twins") as storage, pytest.raises(InvalidInput, match="tw1n0001, tw1n0002"):
        storage.stat("a")
    with opened(fake, "tw1n0002") as storage, opened(fake, "tw1n0001") as other:
        storage.write("a", b"2")
        assert storage.read_bytes("a") == b"2"
        assert list(other.walk()) == []
    with opened(fake, "no such space") as storage, pytest.raises(InvalidInput, match="'my data"):
        storage.stat("a")


@pytest.mark.parametrize(
    "url", ["onedata://zone.example", "onedata://zone.example/", "onedata://u@zone.example/s", "onedata:///s"]
)
def test_urls_that_cannot_be_right(url: str) -> None:
    with pytest.raises(InvalidInput):
        open_storage(url, {"token": TOKEN})


def test_tokens(fake: OnedataFake) -> None:
    fake.tokens["readonly"] = Scope({"5pace1d": "space"}, readonly=True)
    with opened(fake) as storage:
        storage.write("a", b"1")
    with opened(fake, token="none") as storage, pytest.raises(StorageDenied):
        storage.stat("a")
    with opened(fake, token="readonly") as storage:
        assert storage.read_bytes("a") == b"1"
        for change in (
            partial(storage.write, "a", b"2"),
            partial(storage.create, "b", b"2"),
            partial(storage.remove, "a"),
        ):
            with pytest.raises(StorageDenied):
                change()
    with opened(fake, token="readonly") as storage:
        assert storage.read_bytes("a") == b"1"
        fake.tokens["readonly"] = Scope({})  # its time is over
        with pytest.raises(StorageError):
            storage.stat("a")
        del fake.tokens["readonly"]
        with pytest.raises(StorageDenied):
            storage.stat("a")


def test_the_token_is_logged_nowhere(fake: OnedataFake, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), opened(fake) as storage:
        storage.write("a", b"1")
        storage.read_bytes("a")
    assert caplog.text
    assert TOKEN not in caplog.text
    assert not [line for line in fake.requests if TOKEN in line]


def test_a_provider_can_be_chosen(fake: OnedataFake) -> None:
    with opened(fake, provider=fake.host.upper()) as storage:
        storage.write("a", b"1")
    with opened(fake, provider="other.example") as storage, pytest.raises(InvalidInput, match=fake.host):
        storage.stat("a")
    fake.online = False
    with opened(fake) as storage, pytest.raises(StorageTransient, match="online"):
        storage.stat("a")


def provider(name: str, version: str, *, online: bool = True, readonly: bool = False) -> Provider:
    return Provider(name, f"{name}.example", tuple(map(int, version.split("."))), online, readonly)


def test_everybody_chooses_the_same_provider() -> None:
    providers = [
        provider("a", "21.02.8"),
        provider("b", "21.02.8"),
        provider("c", "25.0", readonly=True),
        provider("d", "25.0", online=False),
        provider("e", "20.02.19"),
    ]
    for order in (providers, providers[::-1]):
        assert choose_provider(Space("1", "s", tuple(order)), "").id == "b"
    readonly = Space("1", "s", (provider("a", "21.02.1", readonly=True),))
    assert choose_provider(readonly, "").id == "a"
    with pytest.raises(StorageError, match="older"):
        choose_provider(Space("1", "s", (provider("e", "20.02.19"),)), "")
    with pytest.raises(InvalidInput):
        choose_provider(Space("1", "s", ()), "")


def test_a_busy_provider(fake: OnedataFake) -> None:
    with opened(fake) as storage:
        storage.write("a", b"1")
        fake.busy = 1
        with pytest.raises(StorageTransient):
            storage.read_bytes("a")
        assert storage.read_bytes("a") == b"1"


def test_of_two_providers_files_one_counts_and_it_is_the_same_for_both(fake: OnedataFake) -> None:
    """The other one is seen with '@' after its name, as soon as the providers have told each other."""
    with opened(fake) as storage:
        storage.create("locks/0", b"")
        fake.tree.conflicting(folder(fake, "p/locks"), "1", b"theirs")
        storage.create("locks/1", b"mine")  # the lower id of the provider counts, and it is ours
        assert storage.read_bytes("locks/1") == b"mine"
        lower = fake.tree.conflicting(folder(fake, "p/locks"), "2", b"theirs")
        lower.provider = "0" * 32
        with pytest.raises(StorageExists):
            storage.create("locks/2", b"mine")
        with pytest.raises(StorageMissing):
            storage.stat("locks/2")
        assert lower.inode.content == b"theirs"


def test_who_was_cut_off_while_it_replaced_a_file_has_lost_nothing(fake: OnedataFake) -> None:
    with opened(fake) as storage:
        storage.write("a", b"old")
        moved: list[str] = []
        real = fake.tree.move

        def move(node: Node, parent: Node, raw: bytes) -> None:
            if moved:
                raise Refused(503, "serviceUnavailable")
            moved.append(node.name)
            real(node, parent, raw)

        fake.tree.move = move  # type: ignore[method-assign] # the old one is moved aside, and no more
        with pytest.raises(StorageTransient):
            storage.write("a", b"new")
        assert "a" not in folder(fake, "p").children
        assert storage.read_bytes("a") == b"old"
        assert storage.stat("a").size == 3
        with pytest.raises(StorageExists):
            storage.create("a", b"mine")
        fake.tree.move = real  # type: ignore[method-assign]
        storage.move("a", "b")
        assert storage.read_bytes("b") == b"old"
        with pytest.raises(StorageMissing):
            storage.stat("a")
        storage.write("a", b"new")
        storage.remove("a")
        with pytest.raises(StorageMissing):
            storage.stat("a")


def test_pages_of_a_thousand(fake: OnedataFake) -> None:
    with opened(fake) as storage:
        storage.make_folder("many")
        for n in range(2500):
            fake.tree.add(folder(fake, "p/many"), f"{n}".encode(), "REG")
        fake.requests.clear()
        assert {stat.key for stat in storage.walk()} == {f"many/{n}" for n in range(2500)}
    assert sum("/children?" in line for line in fake.requests) == 4  # one of the root's, three of many's


def test_a_file_is_whole_or_not_there_when_a_write_is_cut_off(fake: OnedataFake) -> None:
    """Onedata shows a file before its content is there: till then ours has another name."""
    with opened(fake) as storage:
        storage.write("other", b"")
        go, seen = threading.Event(), threading.Event()

        class Slow:
            """A content that waits in the middle."""

            sent = 0

            def fileno(self) -> int:
                raise OSError

            def tell(self) -> int:
                return 0

            def seek(self, _: int, whence: int = 0) -> int:
                return 400_000 if whence == 2 else 0

            def read(self, size: int) -> bytes:
                if self.sent:
                    seen.set()
                    assert go.wait(60)
                self.sent += size
                return b"x" * size

        writer = threading.Thread(target=storage.write, args=("file", Slow()))
        writer.start()
        assert seen.wait(60)
        with pytest.raises(StorageMissing):
            storage.stat("file")
        go.set()
        writer.join()
        assert storage.stat("file").size == 400_000
