"""Manifests: what holds for every tree and every way to damage the bytes of one."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from levels import examples
from scipion_cloud.errors import SyncError
from scipion_cloud.sync import codec
from scipion_cloud.sync.entry import Entry, EntryKind, parent_of
from scipion_cloud.sync.manifest import Manifest, apply, diff

NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"\n", b'"', b" ", b"\xff\xfe", "é".encode(), b"e\xcc\x81", b"n" * 255]),
    st.binary(min_size=1, max_size=12).filter(
        lambda n: not set(n) & {0, ord("/")} and n not in (b".", b"..")
    ),
)
TIMES = st.integers(-(2**62), 2**62)
MODES = st.integers(0, 0o7777)


@st.composite
def trees(draw: st.DrawFn) -> Manifest:
    """Any tree: every kind, any name, any time."""
    entries: dict[bytes, Entry] = {}
    folders: list[bytes] = [b""]
    files: list[bytes] = []
    for _ in range(draw(st.integers(0, 12))):
        folder = draw(st.sampled_from(folders))
        name = draw(NAMES)
        path = folder + b"/" + name if folder else name
        if path in entries:
            continue
        kind = draw(st.sampled_from(EntryKind))
        mode, mtime = draw(MODES), draw(TIMES)
        if kind is EntryKind.FOLDER:
            folders.append(path)
            entries[path] = Entry(path, kind, mode, mtime)
        elif kind is EntryKind.FILE or not files:
            size, digest = draw(st.integers(0, 2**60)), draw(st.binary(min_size=32, max_size=32))
            entries[path] = Entry(path, EntryKind.FILE, mode, mtime, size, digest, sparse=draw(st.booleans()))
            files.append(path)
        elif kind is EntryKind.HARD_LINK:
            entries[path] = Entry(path, kind, target=draw(st.sampled_from(files)))
        else:
            entries[path] = Entry(path, kind, 0o777, mtime, target=draw(st.binary(max_size=40)))
    return Manifest(entries.values())


HEADERS = st.dictionaries(
    st.text(max_size=10),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.text(max_size=60),
        st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    ),
    max_size=8,
)


@given(HEADERS, trees())
def test_any_tree_comes_back(header: dict[str, object], tree: Manifest) -> None:
    data = codec.encode(header, tree)
    told, back = codec.decode(data)
    assert (told, back) == (header, tree)
    assert codec.decode_header(data[:4096]) == header
    assert all(type(back[path].kind) is EntryKind for path in back)


@given(trees(), trees())
def test_a_plan_leads_from_any_tree_to_any_other(a: Manifest, b: Manifest) -> None:
    plan = diff(a, b)
    assert apply(plan, a) == b
    assert bool(plan) == (a != b)
    seen = {b""}
    for entry in plan.put:  # a folder before what is in it
        assert parent_of(entry.path) in seen or parent_of(entry.path) in a
        seen.add(entry.path)
    gone: set[bytes] = set()
    for entry in plan.remove:  # and after it when it goes
        assert parent_of(entry.path) not in gone
        gone.add(entry.path)


@given(trees(), st.data())
@settings(max_examples=examples(100))
def test_damaged_bytes_are_refused(tree: Manifest, data: st.DataObject) -> None:
    good = codec.encode({"number": 1}, tree)
    bad = bytearray(good)
    place = data.draw(st.integers(0, len(good) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "insert", "grow"]))
    if how == "flip":
        bad[place] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del bad[place:]
    elif how == "insert":
        bad[place:place] = data.draw(st.binary(min_size=1, max_size=9))
    else:
        bad += data.draw(st.binary(min_size=1, max_size=9))
    if bad == good:
        return
    with pytest.raises(SyncError):
        codec.decode(bytes(bad))


ROWS = st.lists(
    st.tuples(
        *[
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(-(2**63), 2**63),
                st.binary(max_size=40),
                st.text(max_size=2),
            )
        ]
        * 8
    ),
    max_size=4,
)


@given(ROWS)
@settings(max_examples=examples(100))
def test_rows_that_are_none_are_refused_although_all_digests_are_right(
    rows: list[tuple[object, ...]],
) -> None:
    data = codec.pack(codec.MANIFEST, {}, rows)
    try:
        _, tree = codec.decode(data)
    except SyncError:
        return
    assert {tuple(entry) for entry in tree.values()} <= set(rows)


@given(st.binary(max_size=300))
def test_anything_else_is_refused(data: bytes) -> None:
    for refused in (data, codec.MANIFEST + data):
        with pytest.raises(SyncError):
            codec.decode(refused)
        with pytest.raises(SyncError):
            codec.decode_header(refused)
