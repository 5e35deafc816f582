"""Credentials given to commands."""

from pathlib import Path

import pytest

from scipion_cloud.errors import ConfigError, InvalidInput
from scipion_cloud.storage.credentials import SOURCE, read_credentials
from scipion_cloud.storage.kinds import StorageKind, kind_of
from scipion_cloud.storage.sealing import Sealer


def kind(scheme: str) -> StorageKind:
    found = kind_of(scheme)
    assert found is not None
    return found


S3, SFTP, FOLDER = kind("s3"), kind("sftp"), kind("file")


def private(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


def test_from_variables() -> None:
    environ = {
        "SCIPION_CLOUD_STORAGE_ACCESS_KEY": "a",
        "SCIPION_CLOUD_STORAGE_SECRET_KEY": "s",
        "SCIPION_CLOUD_STORAGE_REGION": "",
        "SCIPION_CLOUD_STORAGE_PASSWORD": "of another kind of storage",
        "SCIPION_CLOUD_SOURCE_ACCESS_KEY": "b",
        "SCIPION_CLOUD_HOME": "/x",
    }
    assert read_credentials(S3, environ=environ) == {"access_key": "a", "secret_key": "s"}
    assert read_credentials(S3, environ=environ, prefix=SOURCE) == {"access_key": "b"}
    assert read_credentials(FOLDER, environ=environ) == {}


@pytest.mark.parametrize(
    "text",
    [
        "private_key = '''\n-----BEGIN\nabc\n'''\npassphrase = \"p\"\npassword = ''\n",
        '{"private_key": "-----BEGIN\\nabc\\n", "passphrase": "p", "password": ""}',
    ],
)
def test_from_a_file_which_goes_before_variables(tmp_path: Path, text: str) -> None:
    file = private(tmp_path / "keys", text)
    environ = {"SCIPION_CLOUD_STORAGE_PASSPHRASE": "old", "SCIPION_CLOUD_STORAGE_HOST_KEY": "h"}
    assert read_credentials(SFTP, file=file, environ=environ) == {
        "private_key": "-----BEGIN\nabc\n",
        "passphrase": "p",
        "host_key": "h",
    }


def test_from_a_sealed_file(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path / "key")
    file = private(tmp_path / "sealed", sealer.seal({"access_key": "a", "secret_key": "s"}))
    assert read_credentials(S3, file=file, environ={}, sealer=sealer) == {
        "access_key": "a",
        "secret_key": "s",
    }


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = private(tmp_path / "keys", 'access_key = "a"')
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {file}"):
        read_credentials(S3, file=file, environ={})


def test_unknown_names_are_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"STORAGE_SECERT_KEY\. S3 takes SCIPION_CLOUD_STORAGE_ACCESS_KEY, "
    ):
        read_credentials(S3, environ={"SCIPION_CLOUD_STORAGE_SECERT_KEY": "hush"})
    file = private(tmp_path / "keys", 'secert_key = "hush"')
    with pytest.raises(InvalidInput, match=r"gives secert_key\. S3 takes access_key, secret_key") as e:
        read_credentials(S3, file=file, environ={})
    assert "hush" not in str(e.value)
    with pytest.raises(InvalidInput, match="Folder takes no credentials"):
        read_credentials(FOLDER, file=file, environ={})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("secret_key = hush", "not valid TOML"),
        ('{"secret_key": "hush"', "not valid JSON in line 1"),
        ("secret_key = 12345", "secret_key has to be text"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(tmp_path: Path, text: str, said: str) -> None:
    file = private(tmp_path / "keys", text)
    with pytest.raises(ConfigError, match=said) as e:
        read_credentials(S3, file=file, environ={})
    assert "hush" not in str(e.value)
    assert "12345" not in str(e.value)


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_credentials(S3, file=tmp_path / "none", environ={})
    file = private(tmp_path / "keys", "")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not text"):
        read_credentials(S3, file=file, environ={})
