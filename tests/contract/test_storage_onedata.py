"""Onedata storages pass the contract on a FAKE of Onedata, in both dialects; no Onedata runs here."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from onedatafilerestclient import OnedataFileRESTClient, OnedataRESTError

from scipion_cloud.errors import InvalidInput, StorageExists, StorageMissing
from scipion_cloud.storage import Storage, open_storage
from scipion_cloud.testing.servers.onedata import TOKEN, OnedataFake, onedata_fake
from scipion_cloud.testing.storage import StorageContract
from scipion_cloud.testing.storage.common import keys
from scipion_cloud.testing.storage.links import TARGETS

TEXT = {id_: target for id_, target in TARGETS.items() if b"\xff" not in target}


@pytest.fixture(scope="module")
def newer() -> Iterator[OnedataFake]:
    with onedata_fake("21.02.8") as fake:
        yield fake


@pytest.fixture(scope="module")
def older() -> Iterator[OnedataFake]:
    with onedata_fake("21.02.4") as fake:
        yield fake


class OnedataContract(StorageContract):
    """The contract where the targets of symlinks are text."""

    secrets = (TOKEN,)

    @pytest.mark.parametrize("target", TEXT.values(), ids=TEXT.keys())
    def test_links_say_what_they_were_told(self, storage: Storage, target: bytes) -> None:
        super().test_links_say_what_they_were_told(storage, target)

    def test_links_to_what_is_no_text_are_refused(self, storage: Storage) -> None:
        with pytest.raises(InvalidInput):
            storage.symlink("link", b"\xff")
        assert keys(storage) == set()


class TestNewer(OnedataContract):
    """From 21.02.5 on: fileId."""

    @pytest.fixture
    def storage(self, newer: OnedataFake, tmp_path: Path) -> Iterator[Storage]:
        with open_storage(newer.url(f"space/{tmp_path.name}"), {"token": TOKEN}, retry=False) as storage:
            yield storage


class TestOlder(OnedataContract):
    """Before 21.02.5: file_id."""

    @pytest.fixture
    def storage(self, older: OnedataFake, tmp_path: Path) -> Iterator[Storage]:
        with open_storage(older.url(f"space/{tmp_path.name}"), {"token": TOKEN}, retry=False) as storage:
            yield storage


@pytest.mark.parametrize("version", ["21.02.4", "21.02.8", "25.0"])
def test_the_published_client_and_ours_understand_each_other(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second opinion on the fake, and on us. It speaks TLS only, and knows no names with '%'."""
    with onedata_fake(version, certificate=tmp_path) as fake:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        theirs = OnedataFileRESTClient(fake.host, TOKEN, verify_ssl=str(tmp_path / "cert.pem"))  # type: ignore[arg-type]
        with open_storage(fake.url("space"), {"token": TOKEN}, retry=False) as ours:
            ours.write("a/ours.mrc", b"0123456789")
            ours.write("a/replaced", b"old")
            ours.write("a/replaced", b"new")
            assert theirs.get_file_content("space", file_path="a/ours.mrc") == b"0123456789"
            assert theirs.get_file_content("space", file_path="a/ours.mrc", offset=3, size=4) == b"3456"
            assert theirs.get_file_content("space", file_path="a/replaced") == b"new"
            told = theirs.get_attributes("space", attributes=["type", "size", "name"], file_path="a/ours.mrc")
            assert told == {"type": "REG", "size": 10, "name": "ours.mrc"}
            listed = theirs.list_children("space", file_path="a", limit=1)
            assert [one["name"] for one in listed["children"]] == ["ours.mrc"]
            assert not listed["isLast"]
            rest = theirs.list_children("space", file_path="a", continuation_token=listed["nextPageToken"])
            assert [one["name"] for one in rest["children"]] == ["replaced"]

            theirs.create_file("space", "b/theirs", create_parents=True)
            theirs.put_file_content("space", b"xxxxxxxxxx", file_path="b/theirs")
            theirs.put_file_content("space", b"YY", offset=4, file_path="b/theirs")
            assert ours.read_bytes("b/theirs") == b"xxxxYYxxxx"
            theirs.put_file_content("space", b"short", file_path="b/theirs")
            assert ours.read_bytes("b/theirs") == b"short"
            theirs.move("space", "b/theirs", "space", "a/moved")
            assert keys(ours) == {"a/ours.mrc", "a/replaced", "a/moved"}
            with pytest.raises(OnedataRESTError, match="eexist"):
                theirs.create_file("space", "a/moved")
            with pytest.raises(StorageExists):
                ours.create("a/moved", b"")
            theirs.remove("space", file_path="a/moved")
            with pytest.raises(StorageMissing):
                ours.stat("a/moved")
        theirs._op_client.get_session().close()
        theirs._oz_client._http_client.get_session().close()
