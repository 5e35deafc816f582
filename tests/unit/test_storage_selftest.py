"""The self-test finds out what holds, and leaves nothing behind."""

from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from scipion_cloud.errors import StorageDenied
from scipion_cloud.storage import Capabilities, Storage
from scipion_cloud.storage.posix import Posix
from scipion_cloud.storage.selftest import Finding, create_is_exclusive, selftest
from scipion_cloud.storage.wrapper import Wrapper
from scipion_cloud.testing.faulty import Call, Fault, FaultyStorage
from scipion_cloud.testing.memory import ABLE, MemoryStorage

NAMES = [f.name for f in fields(Capabilities) if f.type is bool]


def found(storage: Storage) -> dict[str, Finding]:
    findings = selftest(storage)
    assert len({finding.name for finding in findings}) == len(findings)
    assert all(finding.note for finding in findings)
    return {finding.name: finding for finding in findings}


def test_what_can_do_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("the user's")
    for storage in (MemoryStorage(), Posix(str(tmp_path))):
        findings = found(storage)
        assert list(findings) == ["write", "read", "list", "delete", *NAMES, "round trip"]
        assert all(finding.works and finding.promised for finding in findings.values())
        assert "ms" in findings["round trip"].note
        assert create_is_exclusive(storage)
        assert {stat.key for stat in storage.walk()} <= {"file"}
    assert (tmp_path / "file").read_text() == "the user's"
    assert not list((tmp_path / ".scipion-cloud").glob("selftest-*"))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_there_is_found(name: str) -> None:
    storage = MemoryStorage(replace(ABLE, **{name: False}))
    findings = found(storage)
    for capability in NAMES:
        assert findings[capability].promised is (capability != name)
        assert findings[capability].works is (capability != name)
    assert list(storage.walk()) == []


class Careless(Wrapper):
    """Promises exclusive creation, and takes every file."""

    def create(self, key: str, content: bytes) -> None:
        self.inner.write(key, content)


class Racy(Wrapper):
    """Refuses what is there, but looks first and writes then."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage(replace(ABLE, exclusive_create=False)))

    @property
    def capabilities(self) -> Capabilities:
        return ABLE


class Forgetful(Wrapper):
    """Promises to keep times, and does not."""

    def write(
        self, key: str, content: BinaryIO | bytes, *, mtime: datetime | None = None, new: bool = False
    ) -> None:
        self.inner.write(key, content, mtime=datetime.now(UTC), new=new)


@pytest.mark.parametrize(
    ("storage", "name"),
    [
        (Careless(MemoryStorage()), "exclusive_create"),
        (Racy(), "exclusive_create"),
        (Forgetful(MemoryStorage()), "mtime"),
    ],
    ids=["careless", "racy", "forgetful"],
)
def test_a_promise_that_does_not_hold(storage: Storage, name: str) -> None:
    findings = found(storage)
    assert [f.name for f in findings.values() if not f.works] == [name]
    assert findings[name].promised
    assert list(storage.walk()) == []


def test_a_careless_create_is_noticed_at_once() -> None:
    assert not create_is_exclusive(Careless(MemoryStorage()))


def test_what_must_not_be_written() -> None:
    storage = FaultyStorage(
        MemoryStorage(), lambda call: Fault.FAIL if call.method == "write" else None, error=StorageDenied
    )
    (finding,) = selftest(storage)
    assert (finding.name, finding.works) == ("write", False)
    assert "write" in finding.note
    with pytest.raises(StorageDenied):
        create_is_exclusive(FaultyStorage(MemoryStorage(), {1: Fault.FAIL}, error=StorageDenied))


@pytest.mark.parametrize(
    ("method", "name"), [("read", "read"), ("walk", "list"), ("remove", "delete"), ("symlink", "symlinks")]
)
def test_what_fails_is_told(method: str, name: str) -> None:
    failed: list[int] = []

    def first(call: Call) -> Fault | None:
        if call.method == method and not failed:
            failed.append(call.number)
            return Fault.FAIL
        return None

    memory = MemoryStorage()
    findings = found(FaultyStorage(memory, first, error=StorageDenied))
    assert [f.name for f in findings.values() if not f.works] == [name]
    assert list(memory.walk()) == []


def test_whatever_fails_once_nothing_is_left_that_could_be_removed() -> None:
    """A failure at any one call, but for those that clean up."""
    memory = MemoryStorage()
    calls = FaultyStorage(memory, {})
    selftest(calls)
    for number in range(1, len(calls.calls) - 40):
        memory = MemoryStorage()
        memory.write("file", b"the user's")
        selftest(FaultyStorage(memory, {number: Fault.FAIL}))
        assert memory.read_bytes("file") == b"the user's"


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list(tmp_path.glob(".scipion-cloud/selftest-*"))
