"""From URLs to storages; what is wrong with a URL or credentials is said."""

from dataclasses import fields

import pytest

from scipion_cloud.errors import InvalidInput
from scipion_cloud.storage import KINDS, Capabilities, open_storage
from scipion_cloud.storage.base import check_key, is_plain
from scipion_cloud.storage.kinds import kind_of
from scipion_cloud.storage.posix import Posix
from scipion_cloud.storage.retrying import Retrying

S3 = {"access_key": "AKIA1", "secret_key": "hunter2"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "not the URL of a storage. Such are: file://"),
        ("/data/projects", "not the URL of a storage"),
        ("ftp://host/x", "not the URL of a storage"),
        ("https://host/x", "davs://"),
        ("s3://[broken/x", "not a URL"),
        ("sftp://host:port/x", "not a URL"),
        ("sftp://host:99999/x", "not a URL"),
        ("sftp://user:hunter2@host/x", "secrets are given apart"),
        ("file:///data?x=1", "out of the URL"),
        ("file:///data#x", "out of the URL"),
        ("file://data/projects", "three slashes: file:///data"),
        ("file:///", "names no folder"),
        ("file:", "names no folder"),
        ("file:data", "names no folder"),
        ("file:///data/../etc", "names no folder"),
        ("file:///data/%2E%2E/etc", "names no folder"),
        ("file:///data%00", "names no folder"),
    ],
)
def test_urls_that_cannot_be(url: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_storage(url)
    assert said in caught.value.errors["url"]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "credentials", "said"),
    [
        ("file:///data", {"password": "hunter2"}, "knows no password; it takes no credentials"),
        ("s3://bucket/x", {"user": "x", **S3}, "knows no user; it takes access_key"),
        ("s3://bucket/x", {"access_key": "AKIA1"}, "Secret key is needed."),
        ("s3://bucket/x", {"access_key": "AKIA1", "secret_key": ""}, "Secret key is needed."),
        ("onedata://host/space", {}, "Access token is needed."),
    ],
)
def test_credentials_that_cannot_be(url: str, credentials: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_storage(url, credentials)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "root", "shown"),
    [
        ("file:///data/projects", "/data/projects", "file:///data/projects"),
        (" file:///data//projects/./x/ ", "/data/projects/x", "file:///data/projects/x"),
        ("file://localhost/data", "/data", "file:///data"),
        ("FILE:///data", "/data", "file:///data"),
        ("file:///it%27s%20%23%3F%2520", "/it's #?%20", "file:///it%27s%20%23%3F%2520"),
        ("file:///caf%E9", "/caf\udce9", "file:///caf%E9"),
    ],
)
def test_folders(url: str, root: str, shown: str) -> None:
    storage = open_storage(url, retry=False)
    assert isinstance(storage, Posix)
    assert (storage.root, storage.url) == (root, shown)
    again = open_storage(storage.url)
    assert isinstance(again, Retrying)
    assert again.url == shown
    assert repr(again) == f"Retrying(Posix({root!r}))"


def test_every_kind_is_found_by_its_example() -> None:
    for kind in KINDS:
        assert kind_of(kind.example.partition(":")[0]) is kind
        assert kind.label
        assert all(credential.label for credential in kind.credentials)
    schemes = [scheme for kind in KINDS for scheme in kind.schemes]
    assert len(schemes) == len(set(schemes))


POOR = Capabilities(
    **{f.name: False for f in fields(Capabilities) if f.type is bool}, max_key=20, max_name=10
)


@pytest.mark.parametrize(
    ("key", "able"),
    [
        ("n" * 11, False),
        ("é" * 5, True),
        ("é" * 6, False),
        ("aaaaa/aaaaa/aaaaa/aa", True),
        ("aaaaa/aaaaa/aaaaa/aaa", False),
        ("a\nb", False),
        ("a\x7fb", False),
        ("a\x85b", False),
        ("caf\u00e9", True),
        ("cafe\u0301", False),
        ("caf\udce9", False),
        ("a\uffff", False),
        ("\U0001f9ca", True),
    ],
)
def test_keys_of_a_storage_that_holds_little(key: str, able: bool) -> None:
    if able:
        assert check_key(key, POOR) == key
        assert is_plain(key)
    else:
        with pytest.raises(InvalidInput):
            check_key(key, POOR)
    assert check_key(key) == key
