"""Files that whoever has the desktop can put into a project: links, pipes, wild databases."""

import os
import sqlite3
import struct
from pathlib import Path

import pytest

from scipion_cloud.errors import InvalidInput
from scipion_cloud.tools import snapshot
from scipion_cloud.tools.inputs import link_inputs
from scipion_cloud.tools.movies.info import read_image_info
from scipion_cloud.tools.movies.results import MovieOutputs, read_motion, scan_results
from scipion_cloud.tools.snapshot import read_project

pytestmark = pytest.mark.timeout(20)


def mrc(nx: int = 2, ny: int = 2, nz: int = 1, mode: int = 2) -> bytes:
    header = struct.pack("<4i", nx, ny, nz, mode).ljust(1024, b"\0")
    return header + bytes(16)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with one finished movie."""
    extra = tmp_path / "Runs" / "000002_Align" / "extra"
    extra.mkdir(parents=True)
    for name in ("a.star", "acorrected_micrographs.star"):
        (extra / name).write_text("data_general\n")
    (extra / "a_aligned_mic.mrc").write_bytes(mrc())
    assert [o.stem for o in scan_results(extra.parent)] == ["a"]
    return extra.parent


@pytest.mark.parametrize("name", ["a_aligned_mic.mrc", "a.star", "acorrected_micrographs.star"])
def test_a_pipe_or_a_link_is_no_result(run_dir: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    file = run_dir / "extra" / name
    file.rename(outside)
    os.mkfifo(file)
    assert scan_results(run_dir) == []
    file.unlink()
    file.symlink_to(outside)
    assert scan_results(run_dir) == []


def test_results_that_are_a_link_to_another_folder_are_not_read(run_dir: Path) -> None:
    other = run_dir.with_name("000003_Mine")
    other.mkdir()
    (other / "extra").symlink_to(run_dir / "extra")
    assert scan_results(other) == []


def test_a_pipe_swapped_in_for_a_star_file_does_not_hold_the_reader(run_dir: Path) -> None:
    star = run_dir / "extra" / "a.star"
    star.unlink()
    os.mkfifo(star)
    with pytest.raises(InvalidInput, match="plain file"):
        read_motion(MovieOutputs("a", star, None, None, None, None))


@pytest.mark.parametrize(("nx", "ny", "frames"), [(65536, 65536, 1), (16384, 16384, 200)])
def test_a_header_with_absurd_sizes_is_refused(tmp_path: Path, nx: int, ny: int, frames: int) -> None:
    movie = tmp_path / "bomb.mrc"
    movie.write_bytes(mrc(nx, ny, frames, mode=0))
    os.truncate(movie, 1024 + nx * ny * frames)  # sparse: it takes no room on the disk
    with pytest.raises(InvalidInput, match="more than any camera"):
        read_image_info(movie)


WILD = """CREATE VIEW Objects AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n{where})
    SELECT i AS id, NULL AS parent_id, '' AS name, '' AS classname, {value} AS value,
    '' AS label, '' AS comment, '' AS creation FROM n"""


@pytest.mark.parametrize(
    ("where", "value"),
    [(" WHERE 0 > (SELECT count(*) FROM n2)", "''"), ("", "zeroblob(500000000)"), ("", "''")],
    ids=["broken", "huge values", "endless"],
)
def test_a_wild_database_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, value: str
) -> None:
    monkeypatch.setattr(snapshot, "_LONGEST", 0.3)
    with sqlite3.connect(tmp_path / "project.sqlite") as db:
        db.execute(WILD.format(where=where, value=value))
    found = read_project(tmp_path)
    assert found.protocols == ()
    assert "project.sqlite could not be read" in found.problems[0]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "data" / "a.tiff").write_text("a movie")
    (tmp_path / "secret.tiff").write_text("somebody else's")
    return project


@pytest.mark.parametrize("name", ["../secret.tiff", "/etc/passwd", "data/../../secret.tiff", "way.tiff"])
def test_only_files_of_the_data_folder_are_linked(project: Path, name: str) -> None:
    (project / "data" / "way.tiff").symlink_to(project.parent / "secret.tiff")
    with pytest.raises(InvalidInput):
        link_inputs(project, "0a", {"a": name})
    with pytest.raises(InvalidInput):
        link_inputs(project, "0a", {"a": "a.tiff"}, gain=name)


def test_a_movie_that_has_gone_is_told(project: Path) -> None:
    with pytest.raises(InvalidInput, match="Upload it again"):
        link_inputs(project, "0a", {"a": "a.tiff", "b": "b.tiff"})


@pytest.mark.parametrize("stem", ["../a", "a b", "a;b", "", ".a"])
def test_only_safe_names_are_linked(project: Path, stem: str) -> None:
    with pytest.raises(InvalidInput):
        link_inputs(project, "0a", {stem: "a.tiff"})
    with pytest.raises(InvalidInput):
        link_inputs(project, stem, {"a": "a.tiff"})


def test_the_ending_of_a_gain_cannot_carry_a_command(project: Path) -> None:
    name = "gain.mrc$(touch pwned)"
    (project / "data" / name).write_text("a gain")
    with pytest.raises(InvalidInput, match="Rename"):
        link_inputs(project, "0a", {"a": "a.tiff"}, gain=name)


def test_what_else_lies_among_the_links_is_removed(project: Path) -> None:
    linked = link_inputs(project, "0a", {"a": "a.tiff"})
    links = project / linked.folder
    (links / "planted.tiff").symlink_to(project.parent / "secret.tiff")
    (links / "folder").mkdir()
    assert link_inputs(project, "0a", {"a": "a.tiff"}) == linked
    assert [link.name for link in links.iterdir()] == ["a.tiff"]


@pytest.mark.parametrize("place", ["Inputs", "Inputs/0a", "Inputs/0a/movies"])
def test_links_are_not_written_through_a_link(project: Path, place: str) -> None:
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    (project / place).parent.mkdir(parents=True, exist_ok=True)
    (project / place).symlink_to(elsewhere)
    with pytest.raises(InvalidInput, match="must be a folder"):
        link_inputs(project, "0a", {"a": "a.tiff"})
    assert list(elsewhere.iterdir()) == []
