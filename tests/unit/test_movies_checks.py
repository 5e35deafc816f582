"""Sets of movies: what they have in common, and which file does not belong."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from scipion_cloud.tools.movies.checks import check_set


def movie(path: Path, shape: tuple[int, ...] = (3, 20, 30), pixel_size: float = 1.1) -> Path:
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.zeros(shape, np.int8))
        if len(shape) == 3:
            mrc.set_image_stack()
        mrc.voxel_size = pixel_size
    return path


def test_a_good_set(tmp_path: Path) -> None:
    paths = [movie(tmp_path / f"m{n}.mrc") for n in range(3)]
    told: list[int] = []
    report = check_set(paths, movie(tmp_path / "gain.mrc", (20, 30)), inside=tmp_path, report=told.append)
    assert report.is_good
    assert [info.path for info in report.movies] == paths
    assert (report.size, report.frames, report.pixel_size) == ((30, 20), 3, pytest.approx(1.1))
    assert (report.gain_problem, report.warnings, told) == (None, (), [1, 2, 3])


def test_bad_files_are_told_one_by_one(tmp_path: Path) -> None:
    good = [movie(tmp_path / f"m{n}.mrc") for n in range(3)]
    other = movie(tmp_path / "other.mrc", (3, 40, 30))
    text = tmp_path / "notes.mrc"
    text.write_text("nothing")
    image = movie(tmp_path / "image.mrc", (20, 30))
    report = check_set([other, *good, text, image])
    assert not report.is_good
    assert [info.path for info in report.movies] == good
    assert set(report.problems) == {other, text, image}
    assert "30 x 40 pixels, most movies of this set have 30 x 20" in report.problems[other]
    assert "is a text" in report.problems[text]
    assert "is an image" in report.problems[image]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((30, 20), "turned"),
        ((40, 60), "super-resolution"),
        ((10, 15), "physical"),
        ((20, 31), "camera and session"),
        ((3, 20, 30), "it is a movie"),
    ],
)
def test_a_gain_of_the_wrong_shape(tmp_path: Path, shape: tuple[int, ...], said: str) -> None:
    report = check_set([movie(tmp_path / "m.mrc")], movie(tmp_path / "gain.mrc", shape))
    assert said in str(report.gain_problem)
    assert not report.is_good


def test_gains_that_cannot_be_read(tmp_path: Path) -> None:
    paths = [movie(tmp_path / "m.mrc")]
    assert "DigitalMicrograph" in str(check_set(paths, tmp_path / "gain.dm4").gain_problem)
    assert "does not exist" in str(check_set(paths, tmp_path / "gain.mrc").gain_problem)


def test_differences_within_a_set_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    paths = [
        movie(tmp_path / "a.mrc"),
        movie(tmp_path / "b.mrc", (2, 20, 30)),
        movie(tmp_path / "c.mrc", pixel_size=0.9),
        movie(tmp_path / "again" / "a.mrc"),
    ]
    report = check_set(paths)
    assert report.frames == 3
    warnings = " ".join(report.warnings)
    assert "number of frames (3 with 3, 1 with 2)" in warnings
    assert "pixel sizes (0.9, 1.1 A)" in warnings
    assert "2 movies are called a" in warnings


def test_no_movies_at_all() -> None:
    report = check_set([])
    assert not report.is_good
    assert (report.size, report.frames, report.pixel_size, report.problems) == (None, None, None, {})
