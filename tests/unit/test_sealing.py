"""Credentials at rest."""

import threading
from pathlib import Path

import pytest

from scipion_cloud.errors import ConfigError
from scipion_cloud.storage.sealing import Sealer

VALUES = {"access_key": "AKIA", "secret_key": "s3cret\nwith lines", "region": ""}


def test_what_is_sealed_opens_and_shows_nothing(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path / "new" / "storage.key")
    sealed = sealer.seal(VALUES)
    assert sealer.open(sealed) == VALUES
    assert Sealer(tmp_path / "new" / "storage.key").open(sealed + "\n") == VALUES
    assert "s3cret" not in sealed
    assert sealed != sealer.seal(VALUES)


def test_the_key_is_private_and_made_once(tmp_path: Path) -> None:
    file = tmp_path / "storage.key"
    start = threading.Barrier(8)
    sealed: list[str] = []

    def seal() -> None:
        start.wait(60)
        sealed.append(Sealer(file).seal(VALUES))

    threads = [threading.Thread(target=seal) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [Sealer(file).open(text) for text in sealed] == [VALUES] * 8
    assert list(tmp_path.iterdir()) == [file]


def test_old_keys_open_and_the_newest_seals(tmp_path: Path) -> None:
    file = tmp_path / "storage.key"
    sealer = Sealer(file)
    old = sealer.seal(VALUES)
    sealer.rotate()
    assert file.stat().st_mode & 0o777 == 0o600
    assert sealer.open(old) == VALUES
    new = sealer.reseal(old)
    newest, oldest = file.read_text().split()
    file.write_text(newest)
    assert sealer.open(new) == VALUES
    with pytest.raises(ConfigError, match="another key"):
        sealer.open(old)
    file.write_text(oldest)
    assert sealer.open(old) == VALUES


def test_another_key_and_what_was_changed_do_not_open(tmp_path: Path) -> None:
    sealed = Sealer(tmp_path / "a").seal(VALUES)
    Sealer(tmp_path / "b").seal(VALUES)
    for text in (sealed[:-4] + "AAAA", "", "nonsense", "ä"):
        with pytest.raises(ConfigError, match="enter the credentials again"):
            Sealer(tmp_path / "a").open(text)
    with pytest.raises(ConfigError, match="another key"):
        Sealer(tmp_path / "b").open(sealed)


@pytest.mark.parametrize(("content", "said"), [("", "empty"), ("nonsense\n", "does not hold keys")])
def test_a_key_file_that_is_none(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "key"
    file.touch(0o600)
    file.write_text(content)
    for use in (lambda: Sealer(file).seal(VALUES), lambda: Sealer(file).open("x")):
        with pytest.raises(ConfigError, match=said):
            use()
    assert file.read_text() == content  # it may be somebody's


def test_a_key_file_that_is_gone_or_that_others_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    sealed = Sealer(file).seal(VALUES)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=f"chmod 600 {file}"):
        Sealer(file).open(sealed)
    file.unlink()
    with pytest.raises(ConfigError, match="is missing"):
        Sealer(file).open(sealed)
    assert not file.exists()  # a new key would not open it either
