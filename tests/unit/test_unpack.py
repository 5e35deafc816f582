"""Archives made by strangers, unpacked: nothing reaches outside, and nothing is lost in silence."""

import bz2
import gzip
import io
import lzma
import os
import sqlite3
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard

from scipion_cloud.copies import room
from scipion_cloud.copies.members import BadArchive
from scipion_cloud.copies.report import Report, read_report
from scipion_cloud.copies.unpack import unpack
from scipion_cloud.errors import NoRoom

TIME = 1_600_000_000


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("db") / "project.sqlite"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE Objects (id)")
    db.close()
    return file.read_bytes()


class Made:
    """A tar archive in the making."""

    def __init__(self, database: bytes) -> None:
        self._bytes = io.BytesIO()
        self.tar = tarfile.open(  # noqa: SIM115
            fileobj=self._bytes, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
        )
        self.file("p/project.sqlite", database)

    def file(self, name: str, content: bytes = b"x", mode: int = 0o644) -> None:
        self.add(name, tarfile.REGTYPE, mode=mode, size=len(content), content=content)

    def add(self, name: str, kind: bytes, target: str = "", content: bytes = b"", **more: int) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mtime = kind, target, TIME
        for key, value in more.items():
            setattr(info, key, value)
        self.tar.addfile(info, io.BytesIO(content))

    def link(self, name: str, target: str) -> None:
        self.add(name, tarfile.SYMTYPE, target)

    @property
    def whole(self) -> bytes:
        self.tar.close()
        return self._bytes.getvalue()


@pytest.fixture
def made(database: bytes) -> Made:
    return Made(database)


class Unpacked:
    """What came of an archive."""

    def __init__(self, content: bytes, folder: Path) -> None:
        file = folder / "archive"
        file.write_bytes(content)
        (folder / "outside").mkdir()
        (folder / "outside" / "secret").write_text("secret")
        state = folder / "state"
        state.mkdir()
        with Report(state) as report, file.open("rb") as archive:
            self.path = unpack(archive, folder / "into", report)
        self.told = {p["path"]: p["text"] for p in read_report(state)["problems"]}
        self.folder = folder
        assert sorted(os.listdir(folder)) == ["archive", "into", "outside", "state"]  # noqa: PTH208
        assert (folder / "outside" / "secret").read_text() == "secret"


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[[bytes], Unpacked]:
    return lambda content: Unpacked(content, tmp_path)


Unpacks = Callable[[bytes], Unpacked]


def test_all_that_a_tar_holds(made: Made, unpacked: Unpacks) -> None:
    made.add("p/Runs", tarfile.DIRTYPE, mode=0o2750)
    made.add("p/empty", tarfile.DIRTYPE, mode=0o755)
    made.file("p/Runs/a\nb\udcff.txt", b"odd", mode=0o640)
    made.file("p/program", b"#!", mode=0o6755)
    made.add("p/Runs/again", tarfile.LNKTYPE, "p/program")
    made.link("p/Runs/link", "../program")
    made.link("p/absolute", "/home/x/p/Runs/again")
    made.file("p/holes", bytes(1 << 20) + b"end")
    made.file("p/replaced", b"old")
    made.file("p/replaced", b"new")
    found = unpacked(made.whole)
    project = found.path
    assert project.name == "p"
    assert found.told == {}
    assert (project / "Runs").stat().st_mode & 0o7777 == 0o2750
    assert (project / "Runs").stat().st_mtime == TIME
    assert (project / "empty").is_dir()
    odd = os.fsencode(project) + b"/Runs/a\nb\xff.txt"
    assert Path(os.fsdecode(odd)).read_bytes() == b"odd"
    assert Path(os.fsdecode(odd)).stat().st_mode & 0o7777 == 0o640
    assert (project / "program").stat().st_mode & 0o7777 == 0o755, "nobody gets the rights of another"
    assert (project / "program").stat().st_mtime == TIME
    assert (project / "program").samefile(project / "Runs" / "again")
    assert str((project / "Runs" / "link").readlink()) == "../program"
    assert str((project / "absolute").readlink()) == "Runs/again", "it was a link within the project"
    assert (project / "holes").stat().st_size == (1 << 20) + 3
    assert (project / "holes").stat().st_blocks * 512 < 1 << 20
    assert (project / "replaced").read_bytes() == b"new"


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda content: content,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("how", COMPRESSED)
def test_every_compression_whole_and_cut(made: Made, unpacked: Unpacks, tmp_path: Path, how: str) -> None:
    content = os.urandom(300_000)
    made.file("p/noise", content)
    archive = COMPRESSED[how](made.whole)
    for number, cut in enumerate((len(archive) // 2, len(archive) - (20_000 if how == "tar" else 5))):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(BadArchive, match="damaged or cut off"):
            Unpacked(archive[:cut], folder)
    whole = tmp_path / "whole"
    whole.mkdir()
    assert (Unpacked(archive, whole).path / "noise").read_bytes() == content


def test_damage_in_the_middle_is_not_taken_for_the_end(made: Made, unpacked: Unpacks) -> None:
    made.file("p/a", b"a" * 1024)
    made.file("p/b", b"b" * 1024)
    archive = bytearray(made.whole)
    header = archive.index(b"p/b\0")
    archive[header : header + 512] = os.urandom(512)
    with pytest.raises(BadArchive, match="damaged or cut off"):
        unpacked(bytes(archive))


def test_a_wrong_checksum_is_seen(made: Made, unpacked: Unpacks) -> None:
    archive = bytearray(gzip.compress(made.whole))
    archive[-8] ^= 1
    with pytest.raises(BadArchive, match="damaged"):
        unpacked(bytes(archive))


@pytest.mark.parametrize("name", ["/etc/x", "../x", "p/../../x", "p/a/../../../outside/secret"])
def test_no_name_leads_outside(made: Made, unpacked: Unpacks, name: str) -> None:
    made.file(name, b"evil")
    made.add(name + "d", tarfile.DIRTYPE, mode=0o777)
    made.link(name + "l", "p")
    made.add(name + "h", tarfile.LNKTYPE, "p/project.sqlite")
    found = unpacked(made.whole)
    assert set(found.told) == {name, name + "d", name + "l", name + "h"}
    assert os.listdir(found.path) == ["project.sqlite"]  # noqa: PTH208


@pytest.mark.parametrize("where", ["{outside}", "../../outside", "..", "/", "a/../../../outside"])
def test_nothing_is_written_through_a_link_and_none_leads_outside(
    made: Made, unpacked: Unpacks, tmp_path: Path, where: str
) -> None:
    made.link("p/out", where.format(outside=tmp_path / "outside"))
    made.file("p/out/secret", b"evil")
    made.link("p/out2", where.format(outside=tmp_path / "outside"))
    made.link("p/file", f"{tmp_path}/outside/secret")
    made.file("p/file", b"mine")
    found = unpacked(made.whole)
    assert not (found.path / "out").is_symlink()
    assert not (found.path / "out2").is_symlink()
    assert (found.path / "out" / "secret").read_bytes() == b"evil", "in a folder of the archive's own"
    assert (found.path / "file").read_bytes() == b"mine"
    assert "left out" in found.told["p/out2"]


def test_links_that_lead_outside_only_together(made: Made, unpacked: Unpacks) -> None:
    made.add("p/a/b", tarfile.DIRTYPE, mode=0o755)
    made.link("p/top", "a/b/../..")
    made.link("p/a/b/up", "../..")
    made.link("p/escape", "a/b/up/../../outside/secret")
    made.link("p/out", "a/b/up/..")
    found = unpacked(made.whole)
    assert not (found.path / "escape").is_symlink()
    assert not (found.path / "out").is_symlink()
    assert (found.path / "a" / "b" / "up").resolve() == found.path
    for above, folders, files in os.walk(found.path):
        for name in folders + files:
            assert (Path(above) / name).resolve().is_relative_to(found.path)


def test_a_hard_link_takes_nothing_from_outside(made: Made, unpacked: Unpacks, tmp_path: Path) -> None:
    made.add("p/a", tarfile.LNKTYPE, f"{tmp_path}/outside/secret")
    made.add("p/b", tarfile.LNKTYPE, "p/../../outside/secret")
    made.link("p/out", f"{tmp_path}/outside")
    made.add("p/c", tarfile.LNKTYPE, "p/out/secret")
    made.link("p/l", f"{tmp_path}/outside/secret")
    made.add("p/d", tarfile.LNKTYPE, "p/l")
    found = unpacked(made.whole)
    assert os.listdir(found.path) == ["project.sqlite"]  # noqa: PTH208
    assert {"p/a", "p/b", "p/c", "p/d", "p/l", "p/out"} == set(found.told)


def test_devices_and_pipes_and_what_does_not_fit_are_told(made: Made, unpacked: Unpacks) -> None:
    made.add("p/null", tarfile.CHRTYPE, devmajor=1, devminor=3)
    made.add("p/disk", tarfile.BLKTYPE, devmajor=8)
    made.add("p/pipe", tarfile.FIFOTYPE)
    made.file("p/" + "n" * 300)
    made.file("p/" + "d/" * 200 + "x")
    made.file("p/file")
    made.file("p/file/below")
    made.add("p/folder", tarfile.DIRTYPE, mode=0)
    made.file("p/folder")
    found = unpacked(made.whole)
    assert len(found.told) == 7
    assert sorted(os.listdir(found.path)) == ["file", "folder", "project.sqlite"]  # noqa: PTH208
    assert stat.S_IMODE((found.path / "folder").stat().st_mode) == 0o700, "we can work in it"


def test_a_bomb_stops_before_the_disk_is_full(
    made: Made, unpacked: Unpacks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.file("p/bomb", b"x" * (5 << 20))
    archive = gzip.compress(made.whole)
    monkeypatch.setattr(room, "_STEP", 1 << 20)
    start = os.fstatvfs

    def small(fd: int) -> SimpleNamespace:
        used = sum(p.stat().st_blocks * 512 for p in (tmp_path / "into").rglob("*"))
        size = 20 << 20
        left = (size - (17 << 20) - used) // 4096
        return SimpleNamespace(f_frsize=4096, f_blocks=size // 4096, f_bavail=left, f_files=0, f_favail=0)

    monkeypatch.setattr(os, "fstatvfs", small)
    with pytest.raises(NoRoom, match="nearly full"):
        unpacked(archive)
    monkeypatch.setattr(os, "fstatvfs", start)
    assert (tmp_path / "into" / "p" / "bomb").stat().st_size <= 3 << 20


def test_a_file_of_nothing_but_holes_cannot_be_endless(made: Made, unpacked: Unpacks) -> None:
    made.tar.close()
    info = tarfile.TarInfo("p/holes")
    info.size = 1 << 60
    with pytest.raises(BadArchive, match="larger than this machine's disk"):
        unpacked(made.whole[:-10240] + info.tobuf(tarfile.GNU_FORMAT) + bytes(20480))


def test_where_the_project_may_be(database: bytes, tmp_path: Path) -> None:
    def archive(*names: str) -> bytes:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = len(database)
                tar.addfile(info, io.BytesIO(database))
        return content.getvalue()

    def found(*names: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        path = Unpacked(archive(*names), folder).path
        return str(path.relative_to(folder / "into"))

    assert found("project.sqlite") == "."
    assert found("./project.sqlite", "backup/project.sqlite") == "."
    assert found("a/b/c/project.sqlite") == "a/b/c"
    assert found("a/project.sqlite", "a/old/project.sqlite", "b/x") == "a"
    for some in ([], ["x"], ["a/b/c/d/project.sqlite"]):
        with pytest.raises(BadArchive, match="no Scipion project"):
            found(*some)
    with pytest.raises(BadArchive, match="2 projects"):
        found("a/project.sqlite", "b/project.sqlite")


def test_what_is_called_a_database_has_to_be_one(made: Made, unpacked: Unpacks) -> None:
    made.file("p/project.sqlite", b"no")
    with pytest.raises(BadArchive, match="not a database"):
        unpacked(made.whole)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(100), os.urandom(4096)])
def test_what_is_no_archive(unpacked: Unpacks, content: bytes) -> None:
    with pytest.raises(BadArchive):
        unpacked(content)


def zipped(database: bytes, **how: int) -> tuple[io.BytesIO, zipfile.ZipFile]:
    content = io.BytesIO()
    archive = zipfile.ZipFile(content, "w", compression=how.get("compression", zipfile.ZIP_DEFLATED))
    archive.writestr("p/project.sqlite", database)
    return content, archive


def zip_link(archive: zipfile.ZipFile, name: str, target: str) -> None:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, target)


def test_zips(database: bytes, unpacked: Unpacks, tmp_path: Path) -> None:
    content, archive = zipped(database)
    archive.mkdir("p/empty")
    info = zipfile.ZipInfo("p/run.sh", (2020, 9, 13, 12, 26, 40))
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o4755) << 16
    archive.writestr(info, "#!")
    archive.writestr("p/é", "e")
    archive.writestr("../evil", "x")
    archive.writestr("/evil", "x")
    zip_link(archive, "p/link", "run.sh")
    zip_link(archive, "p/out", f"{tmp_path}/outside")
    archive.writestr("p/out/secret", "evil")
    archive.close()
    found = unpacked(content.getvalue())
    assert sorted(os.listdir(found.path)) == ["empty", "link", "out", "project.sqlite", "run.sh", "é"]  # noqa: PTH208
    assert (found.path / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (found.path / "run.sh").stat().st_mtime == TIME
    assert str((found.path / "link").readlink()) == "run.sh"
    assert not (found.path / "out").is_symlink()
    assert set(found.told) == {"../evil", "/evil", "p/out"}


def test_a_damaged_and_an_encrypted_zip(database: bytes, tmp_path: Path) -> None:
    content, archive = zipped(database, compression=zipfile.ZIP_STORED)
    archive.writestr("p/a", b"a" * 1000)
    archive.close()
    whole = content.getvalue()
    place = whole.index(b"a" * 100)
    encrypted = bytearray(whole)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := encrypted.find(magic, start + 1)) >= 0:
            encrypted[start + offset] |= 1
    cases = [
        (whole[:place] + b"b" + whole[place + 1 :], "damaged"),
        (whole[: len(whole) // 2], "damaged"),
        (bytes(encrypted), "encrypted"),
    ]
    for number, (broken, words) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(BadArchive, match=words):
            Unpacked(broken, folder)
