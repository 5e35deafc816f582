"""SFTP keeps the contract of the storages, on a real OpenSSH server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cryptography.hazmat.primitives import serialization

from scipion_cloud.errors import InvalidInput, StorageDenied, StorageFull, StorageTransient
from scipion_cloud.storage import NewFile, Storage, open_storage, sftp_protocol
from scipion_cloud.storage.selftest import create_is_exclusive
from scipion_cloud.testing.disks import full, small_disk
from scipion_cloud.testing.servers.daemon import free_port
from scipion_cloud.testing.servers.openssh import OpenSsh, new_key, openssh_server
from scipion_cloud.testing.servers.proxy import Proxy, fault_proxy
from scipion_cloud.testing.servers.rclone_sftp import RcloneSftp, rclone_sftp
from scipion_cloud.testing.storage import StorageContract


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSsh]:
    with openssh_server(tmp_path_factory.mktemp("sftp")) as server:
        yield server


class TestOpenSsh(StorageContract):
    """OpenSSH's own SFTP server."""

    @pytest.fixture
    def storage(self, server: OpenSsh, tmp_path: Path) -> Iterator[Storage]:
        root = server.root / tmp_path.name  # it is not there yet
        with open_storage(f"{server.url}/{root.name}", server.credentials, retry=False) as storage:
            yield storage


@pytest.fixture
def other_key(tmp_path: Path) -> tuple[str, str]:
    """A key that no server knows: its private and its public half."""
    public = new_key(tmp_path / "other")
    return (tmp_path / "other").read_text(), public


class TestSigningIn:
    """Who is let in, by whom, and what is said to those who are not."""

    def test_a_key_that_the_server_does_not_know(self, server: OpenSsh, other_key: tuple[str, str]) -> None:
        credentials = {**server.credentials, "private_key": other_key[0]}
        with (
            open_storage(server.url, credentials, retry=False) as storage,
            pytest.raises(StorageDenied, match="sign in") as caught,
        ):
            storage.stat("x")
        assert "PRIVATE" not in str(caught.value)

    def test_a_server_whose_key_is_another(self, server: OpenSsh, other_key: tuple[str, str]) -> None:
        credentials = {**server.credentials, "host_key": other_key[1]}
        with (
            open_storage(server.url, credentials, retry=False) as storage,
            pytest.raises(StorageDenied, match="Host key"),
        ):
            storage.stat("x")

    def test_a_server_whose_key_nobody_knows(self, server: OpenSsh) -> None:
        credentials = {"private_key": server.private_key}
        with (
            open_storage(server.url, credentials, retry=False) as storage,
            pytest.raises(StorageDenied, match="ssh-keyscan"),
        ):
            storage.stat("x")

    def test_a_key_with_a_passphrase(self, server: OpenSsh) -> None:
        key = serialization.load_ssh_private_key(server.private_key.encode(), None)
        locked = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.BestAvailableEncryption(b"open sesame"),
        ).decode()
        given = {**server.credentials, "private_key": locked}
        with open_storage(server.url, {**given, "passphrase": "open sesame"}, retry=False) as storage:
            storage.write("locked", b"x")
            assert storage.read_bytes("locked") == b"x"
            storage.remove("locked")
        for passphrase in ("", "open"):
            with pytest.raises(InvalidInput, match="passphrase"):
                open_storage(server.url, {**given, "passphrase": passphrase})

    def test_nobody_is_there(self, server: OpenSsh) -> None:
        with (
            open_storage(server.url_at(free_port()), server.credentials, retry=False) as storage,
            pytest.raises(StorageTransient, match="refused"),
        ):
            storage.stat("x")

    def test_no_process_shows_a_secret_and_none_is_left(self, server: OpenSsh) -> None:
        before = {child.pid for child in psutil.Process().children()}
        with open_storage(server.url, server.credentials, retry=False) as storage:
            storage.write("x", b"x")
            (ssh,) = [child for child in psutil.Process().children() if child.pid not in before]
            line = server.private_key.splitlines()[2]
            assert line not in " ".join([*ssh.cmdline(), *ssh.environ().values()])
            assert "SSH_AUTH_SOCK" not in ssh.environ()
            storage.remove("x")
        assert {child.pid for child in psutil.Process().children()} <= before


class TestNetwork:
    """A network that fails."""

    @pytest.fixture
    def proxy(self, server: OpenSsh) -> Iterator[Proxy]:
        with fault_proxy("127.0.0.1", server.port) as proxy:
            yield proxy

    @pytest.fixture
    def storage(
        self, server: OpenSsh, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Storage]:
        monkeypatch.setattr(sftp_protocol, "SILENCE", 10.0)
        url = f"{server.url_at(proxy.port)}/{tmp_path.name}"
        with open_storage(url, server.credentials, retry=False) as storage:
            yield storage

    def test_connections_that_are_cut_are_replaced(self, storage: Storage, proxy: Proxy) -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda n: storage.write(f"a/{n}", b"x", new=True), range(100)))
        assert proxy.cut() >= 1
        with suppress(StorageTransient):  # one call may be told of it
            storage.stat("a/1")
        for n in range(100):
            assert storage.stat(f"a/{n}").size == 1

    def test_a_read_that_is_cut_says_so(self, storage: Storage, proxy: Proxy) -> None:
        content = bytes(8_000_000)
        storage.write("big", content)
        proxy.cut_after(4_000_000)
        with pytest.raises(StorageTransient):
            storage.read_bytes("big")
        assert storage.read_bytes("big") == content

    def test_a_write_that_is_cut_leaves_the_old_file(self, storage: Storage, proxy: Proxy) -> None:
        storage.write("file", b"old")
        for count in (1000, 100_000, 1_900_000):
            proxy.cut_after(count)
            with pytest.raises(StorageTransient):
                storage.write("file", bytes(2_000_000))
            assert storage.read_bytes("file") == b"old"

    def test_a_silent_server_is_given_up(
        self, storage: Storage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sftp_protocol, "SILENCE", 2.0)
        storage.write("file", b"x")
        proxy.stall()
        for _ in range(2):  # the connection that was there, and a new one
            with pytest.raises(StorageTransient):
                storage.stat("file")
        monkeypatch.setattr(sftp_protocol, "SILENCE", 60.0)
        proxy.heal()
        assert storage.read_bytes("file") == b"x"

    def test_readers_that_are_given_up_block_nobody(self, storage: Storage) -> None:
        storage.write("big", bytes(10_000_000))
        readers = [storage.read("big") for _ in range(4)]  # of one connection
        for reader in readers:
            assert next(reader)
        storage.write("other", b"x")
        assert 9_000_000 < len(b"".join(readers[0])) < 10_000_000
        del readers
        assert storage.read_bytes("other") == b"x"


class TestRclone:
    """A server that is not OpenSSH, and a password."""

    @pytest.fixture
    def rclone(self, tmp_path: Path) -> Iterator[RcloneSftp]:
        with rclone_sftp(tmp_path) as server:
            yield server

    def test_what_it_can_do_is_done(self, rclone: RcloneSftp) -> None:
        content = bytes(range(256)) * 4000
        with open_storage(rclone.url, rclone.credentials, retry=False) as storage:
            storage.write("a/b/file", b"old")
            storage.write("a/b/file", content)
            assert storage.read_bytes("a/b/file") == content
            assert b"".join(storage.read("a/b/file", 1000, 500_000)) == content[1000:501_000]
            storage.write("a/other", b"other", new=True)
            storage.move("a/other", "a/b/file")
            assert storage.read_bytes("a/b/file") == b"other"
            assert [(stat.key, stat.size) for stat in storage.walk("a")] == [("a/b/file", 5)]
            storage.flush()
            storage.remove("a/b/file")
            assert list(storage.walk("a")) == []
            able = storage.capabilities
            assert not able.symlinks
            with pytest.raises(NotImplementedError):
                storage.symlink("link", b"x")

    def test_it_is_not_trusted_with_locks(self, rclone: RcloneSftp) -> None:
        with open_storage(rclone.url, rclone.credentials, retry=False) as storage:
            assert not storage.capabilities.exclusive_create
            assert not create_is_exclusive(storage)

    def test_a_wrong_password(self, rclone: RcloneSftp) -> None:
        credentials = {**rclone.credentials, "password": "wrong-password"}
        with (
            open_storage(rclone.url, credentials, retry=False) as storage,
            pytest.raises(StorageDenied, match="password") as caught,
        ):
            storage.stat("x")
        assert "wrong-password" not in str(caught.value)


def test_a_full_disk(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", 8) as disk,
        openssh_server(disk) as server,
        open_storage(server.url, server.credentials, retry=False) as storage,
    ):
        many = [NewFile(f"a/{n}", bytes([n]) * 60_000) for n in range(32)]
        with full(disk, leave=1_000_000):
            with pytest.raises(StorageFull):
                storage.write_new(many)
            with pytest.raises(StorageFull):
                storage.write("one", bytes(2_000_000), new=True)
        storage.write_new(many)
        found = storage.read_small([(file.key, 70_000) for file in many])
        assert found == [file.content for file in many]


def test_openssh_is_trusted_with_locks(server: OpenSsh) -> None:
    with open_storage(server.url, server.credentials, retry=False) as storage:
        assert create_is_exclusive(storage)


@pytest.mark.parametrize(
    ("url", "credentials", "field"),
    [
        ("sftp:///folder", {}, "url"),
        ("sftp://-oProxyCommand=x@host/", {}, "url"),
        ("sftp://a%20b@host/", {}, "url"),
        ("sftp://u@-host/", {}, "url"),
        ("sftp://u@host/a%00b", {}, "url"),
        ("sftp://u@host/", {"private_key": "secret nonsense"}, "private_key"),
        ("sftp://u@host/", {"host_key": "ssh-ed25519"}, "host_key"),
        ("sftp://u@host/", {"password": "a\nb"}, "password"),
    ],
)
def test_what_cannot_be_right(url: str, credentials: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_storage(url, credentials)
    assert set(caught.value.errors) == {field}
    assert "nonsense" not in str(caught.value)
