"""Folders and listings. Nothing here may ever take files with it."""

from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest

from scipion_cloud.errors import StorageError, StorageMissing
from scipion_cloud.storage import Kind, Storage
from scipion_cloud.testing.storage.common import at_once, children, keys

TREE = {"top", "a/file", "a/b/c/deep", "ab/file", "a.txt", "a b/file", "a-b/x/y"}


class Folders:
    """Folders."""

    many = 1050  # more than one page of a listing

    def test_listings(self, storage: Storage) -> None:
        for key in TREE:
            storage.write(key, key.encode())
        assert keys(storage) == TREE
        assert keys(storage, "a") == {"a/file", "a/b/c/deep"}  # and nothing of "ab"
        assert keys(storage, "a/b") == {"a/b/c/deep"}
        found = children(storage)
        assert set(found) == {"top", "a", "ab", "a.txt", "a b", "a-b"}
        folders = {key for key, stat in found.items() if stat.kind is Kind.FOLDER}
        assert folders == {"a", "ab", "a b", "a-b"}
        assert {found[key].size for key in folders} == {0}
        assert set(children(storage, "a")) == {"a/file", "a/b"}
        assert set(children(storage, "a/b")) == {"a/b/c"}
        for stat in (*storage.walk(), *storage.children(), *storage.children("a")):
            assert stat.modified.utcoffset() == timedelta(0)
            if stat.kind is Kind.FILE:
                assert stat.size == len(stat.key)

    def test_what_is_missing_is_empty(self, storage: Storage) -> None:
        for folder in ("", "nothing", "no/thing"):
            assert children(storage, folder) == {}
            assert keys(storage, folder) == set()
        storage.write("a/file", b"")
        for folder in ("a/nothing", "a/fil", "b"):
            assert children(storage, folder) == {}
            assert keys(storage, folder) == set()

    def test_many_files_in_a_folder(self, storage: Storage) -> None:
        wanted = {f"many/{n:05}" for n in range(self.many)}
        at_once([partial(storage.write, key, b"x", new=True) for key in wanted])
        storage.write("other/file", b"x")
        assert set(children(storage, "many")) == wanted
        assert keys(storage) == wanted | {"other/file"}

    def test_folders_are_made_and_removed(self, storage: Storage) -> None:
        there = storage.capabilities.folders
        for _ in range(2):
            storage.make_folder("a/b/c")
        if there:
            assert storage.stat("a/b/c").kind is Kind.FOLDER
            assert storage.stat("a/b/c").key == "a/b/c"
        assert set(children(storage, "a/b")) == ({"a/b/c"} if there else set())
        assert keys(storage) == set()
        storage.write("a/b/file", b"x")
        storage.make_folder("a/b")
        for folder in ("a/b", "a", "a/b/file", "nothing", "no/thing", "a/b/file/below"):
            storage.remove_folder(folder)  # not empty, no folder, not there
        assert storage.read_bytes("a/b/file") == b"x"
        storage.remove_folder("a/b/c")
        assert set(children(storage, "a/b")) == {"a/b/file"}
        storage.remove("a/b/file")
        for folder in ("a/b", "a"):
            storage.remove_folder(folder)
        assert children(storage) == {}
        with pytest.raises(StorageMissing):
            storage.stat("a")

    def test_a_folder_is_not_taken_for_a_file(self, storage: Storage) -> None:
        """Servers remove, or replace by a file, a folder with all that it holds if one lets them."""
        storage.write("a/file", b"kept")
        storage.write("other", b"other")
        with suppress(StorageError):  # where there are no folders, a file may stand beside them
            storage.remove("a")
        with suppress(StorageError):
            storage.write("a", b"new")
        with suppress(StorageError):
            storage.create("a", b"new")
        with suppress(StorageError):
            storage.move("other", "a")
        assert storage.read_bytes("a/file") == b"kept"
        if storage.capabilities.folders:
            assert storage.stat("a").kind is Kind.FOLDER
            assert storage.read_bytes("other") == b"other"
            with pytest.raises(StorageError):
                storage.read_bytes("a")
            with pytest.raises(StorageError):
                storage.write("a", b"new")

    def test_a_file_is_not_taken_for_a_folder(self, storage: Storage) -> None:
        storage.write("a", b"kept")
        with suppress(StorageError):
            storage.write("a/b/file", b"new")
        with suppress(StorageError):
            storage.create("a/create", b"new")
        with suppress(StorageError):
            storage.make_folder("a/b/c")
        with suppress(StorageError):
            storage.make_folder("a")
        assert storage.read_bytes("a") == b"kept"
        if storage.capabilities.folders:
            assert keys(storage) == {"a"}
            with pytest.raises(StorageError):
                storage.write("a/b/file", b"new")
