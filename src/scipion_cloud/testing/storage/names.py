"""Names: those that people and programs give to files, and those that nobody may give."""

import os
import unicodedata
from collections.abc import Callable

import pytest

from scipion_cloud.errors import InvalidInput
from scipion_cloud.storage import Storage
from scipion_cloud.testing.storage.common import children, keys

NAMES = {
    "spaces": "  two  spaces ",
    "quotes": 'it\'s "quoted" `id` $HOME ${x}',
    "backslash": "back\\slash\\",
    "hash": "a#b",
    "question": "a?b=c&d",
    "plus": "a+b",
    "ampersand": "a&amp;b;c",
    "percent-encoded": "a%20b%2Fc%00",
    "percent": "100%",
    "broken-percent": "%zz%",
    "angles": "<a>|*:",
    "brackets": "[a]{b}(c)",
    "equals": "a=b,c@d!e^f~",
    "leading-dash": "-rf",
    "leading-dot": ".hidden",
    "dots": "...",
    "two-dots-more": "..a",
    "trailing-dot": "name.",
    "trailing-space": "name ",
    "nfc": unicodedata.normalize("NFC", "Ma\u0301laga \u00c5ngstro\u0308m"),
    "cjk-and-emoji": "电子显微镜 \U0001f9ca",
    "right-to-left": "שלום",
    "upper-case": "Name.MRC",
    "255-bytes": "n" * 251 + ".mrc",
    "255-bytes-of-unicode": "é" * 127 + "x",
    "like-a-temporary-file": "~name.tmp.part",
    "html": "<script>alert(1)</script>".replace("/", ":"),
}

BYTE_NAMES = {
    "newline": "one\ntwo\r\n",
    "tab-and-control": "\ta\x01b\x7f\x1b[0m",
    "nfd": unicodedata.normalize("NFD", "Málaga"),
    "not-utf8": os.fsdecode(b"caf\xe9 \xff"),
    "wrong-utf8": os.fsdecode(b"\xed\xa0\x80 \xc0\xaf"),
    "bidi-and-zero-width": "a\u202eb\u200bc\ufeff",
}

REFUSED = [
    "",
    "a\ud800",
    ".",
    "..",
    "../a",
    "a/..",
    "a/../b",
    "./a",
    "a/./b",
    "/a",
    "a/",
    "a//b",
    "//",
    "a\0b",
]


def use(storage: Storage, name: str) -> None:
    """Use a name for a file and for a folder, in all that takes a key."""
    file, inside, moved = f"d/{name}", f"f/{name}/{name}", f"m/{name}/x"
    storage.write(file, b"1")
    storage.write(file, b"2")
    storage.create(inside, b"3")
    assert storage.read_bytes(file) == b"2"
    assert storage.read_bytes(inside) == b"3"
    assert storage.stat(file).key == file
    assert set(children(storage, "d")) == {file}
    assert set(children(storage, "f")) == {f"f/{name}"}
    assert set(children(storage, f"f/{name}")) == {inside}
    assert keys(storage) == {file, inside}
    assert keys(storage, f"f/{name}") == {inside}
    storage.move(file, moved)
    assert keys(storage) == {moved, inside}
    storage.move(moved, file)
    assert storage.read_bytes(file) == b"2"
    storage.remove(inside)
    assert keys(storage) == {file}


class Names:
    """Names."""

    @pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
    def test_names(self, storage: Storage, name: str) -> None:
        if len(name.encode()) <= storage.capabilities.max_name:
            use(storage, name)
        else:
            with pytest.raises(InvalidInput):
                use(storage, name)
            assert keys(storage) == set()

    @pytest.mark.parametrize("name", BYTE_NAMES.values(), ids=BYTE_NAMES.keys())
    def test_names_that_not_every_storage_holds(self, storage: Storage, name: str) -> None:
        try:
            use(storage, name)
        except InvalidInput:
            assert not storage.capabilities.byte_names
            assert keys(storage) == set()

    def test_names_that_are_alike(self, storage: Storage) -> None:
        alike = ["Name", "name", "NAME", "naḿe", "name ", " name", "name.", "na%6De", "na+me", "na me"]
        if storage.capabilities.byte_names:
            alike.append(unicodedata.normalize("NFD", "naḿe"))
        for name in alike:
            storage.write(f"a/{name}", name.encode())
        assert keys(storage) == {f"a/{name}" for name in alike}
        assert set(children(storage, "a")) == {f"a/{name}" for name in alike}
        for name in alike:
            assert storage.read_bytes(f"a/{name}") == name.encode()

    def test_the_longest_name_and_key(self, storage: Storage) -> None:
        able = storage.capabilities
        name = "n" * able.max_name
        depth = "d" * min(100, able.max_name)
        key = "/".join([depth] * (able.max_key // (len(depth) + 1) + 1))[: able.max_key].rstrip("/")
        for longest in (name, key):
            storage.write(longest, b"1")
            storage.write(longest, b"2")
            assert storage.read_bytes(longest) == b"2"
            assert keys(storage) == {longest}
            storage.remove(longest)
        storage.create(key, b"3")
        assert storage.stat(key).size == 1
        for longer in (f"{name}n", f"é{name[1:]}", f"{key}/{depth}/x"):
            with pytest.raises(InvalidInput):
                storage.write(longer, b"1")
        assert keys(storage) == {key}

    @pytest.mark.parametrize("key", REFUSED)
    def test_what_cannot_be_a_key(self, storage: Storage, key: str) -> None:
        storage.write("a/b", b"1")
        calls: list[Callable[[], object]] = [
            lambda: storage.stat(key),
            lambda: list(storage.read(key)),
            lambda: storage.read_bytes(key),
            lambda: storage.write(key, b"2"),
            lambda: storage.write(key, b"2", new=True),
            lambda: storage.create(key, b"2"),
            lambda: storage.move(key, "c"),
            lambda: storage.move("a/b", key),
            lambda: storage.remove(key),
            lambda: storage.make_folder(key),
            lambda: storage.remove_folder(key),
        ]
        if key:  # "" is the root
            calls += [lambda: list(storage.children(key)), lambda: list(storage.walk(key))]
        if storage.capabilities.symlinks:
            calls += [lambda: storage.symlink(key, b"x"), lambda: storage.readlink(key)]
        for call in calls:
            with pytest.raises(InvalidInput):
                call()
        assert keys(storage) == {"a/b"}
        assert storage.read_bytes("a/b") == b"1"
