"""Symlinks, where a storage has them: told as such, never followed."""

import pytest

from scipion_cloud.errors import StorageError, StorageMissing
from scipion_cloud.storage import Kind, Storage
from scipion_cloud.testing.storage.common import children, keys

TARGETS = {
    "dangling": b"no/such/file",
    "loop": b"..",
    "itself": b"link",
    "absolute": b"/etc/passwd",
    "odd": b"it's a\nname #?%20 \xff",
    "long": b"x/" * 500 + b"y",
}


class Links:
    """Symlinks; that a storage without them says so."""

    @pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
    def test_links_say_what_they_were_told(self, storage: Storage, target: bytes) -> None:
        if not storage.capabilities.symlinks:
            return self.check_refusal(storage)
        storage.write("a/file", b"x")
        storage.symlink("a/b/link", target)
        assert storage.readlink("a/b/link") == target
        stat = storage.stat("a/b/link")
        assert (stat.key, stat.kind, stat.size) == ("a/b/link", Kind.LINK, 0)
        assert children(storage, "a/b")["a/b/link"].kind is Kind.LINK
        assert keys(storage) == {"a/file", "a/b/link"}
        storage.move("a/b/link", "c/link")
        assert storage.readlink("c/link") == target
        storage.remove("c/link")
        assert keys(storage) == {"a/file"}

    def check_refusal(self, storage: Storage) -> None:
        """A storage without symlinks says so, and leaves nothing behind."""
        with pytest.raises(NotImplementedError):
            storage.symlink("link", b"x")
        assert keys(storage) == set()

    def test_links_are_not_followed(self, storage: Storage) -> None:
        if not storage.capabilities.symlinks:
            return self.check_refusal(storage)
        storage.write("folder/file", b"x")
        storage.symlink("to-folder", b"folder")
        storage.symlink("folder/loop", b"..")
        assert keys(storage) == {"folder/file", "folder/loop", "to-folder"}
        assert keys(storage, "to-folder") == set()
        assert children(storage, "to-folder") == {}
        assert {key: stat.kind for key, stat in children(storage).items()} == {
            "folder": Kind.FOLDER,
            "to-folder": Kind.LINK,
        }
        storage.remove("to-folder")
        assert storage.read_bytes("folder/file") == b"x"

    def test_files_and_links_replace_each_other(self, storage: Storage) -> None:
        if not storage.capabilities.symlinks:
            return self.check_refusal(storage)
        storage.write("precious", b"precious")
        storage.write("a", b"a")
        storage.symlink("a", b"precious")
        assert storage.readlink("a") == b"precious"
        storage.symlink("a", b"./precious")
        assert storage.readlink("a") == b"./precious"
        storage.write("a", b"new")  # in the link's place, not through it
        assert storage.read_bytes("a") == b"new"
        storage.symlink("b", b"precious")
        storage.move("a", "b")
        assert storage.read_bytes("b") == b"new"
        assert storage.read_bytes("precious") == b"precious"
        storage.symlink("c", b"nothing")
        with pytest.raises(StorageError):
            storage.create("c", b"new")  # something stands there
        assert keys(storage) == {"precious", "b", "c"}

    def test_what_is_no_link(self, storage: Storage) -> None:
        if not storage.capabilities.symlinks:
            return self.check_refusal(storage)
        storage.write("a/file", b"x")
        with pytest.raises(StorageMissing):
            storage.readlink("nothing")
        with pytest.raises(StorageError):
            storage.readlink("a/file")
        with pytest.raises(StorageError):
            storage.symlink("a", b"x")
        assert keys(storage) == {"a/file"}
