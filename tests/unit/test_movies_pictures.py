"""Pictures of an alignment: what they show, and their size."""

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from scipion_cloud.errors import InvalidInput
from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.tools.movies.frames import iter_frames, mean_frame, read_gain, read_image
from scipion_cloud.tools.movies.pictures import make_pictures, make_thumbnail, power_spectrum
from scipion_cloud.tools.movies.results import MovieOutputs

SPEC = MovieSpec(size=512, frames=8, pixel_size=2, dose_per_frame=3, local_drift=0)


def aligned(folder: Path, movie: Path) -> MovieOutputs:
    """A micrograph made by moving each frame back by the known drift, as an alignment would."""
    known = json.loads((folder / "truth.json").read_text())["movies"][0]["drift_A"]
    gain = read_gain(folder / "gain.mrc")
    total = np.zeros_like(gain)
    for frame, x, y in zip(iter_frames(movie), known["x"], known["y"], strict=True):
        total += ndimage.shift(
            frame * gain, (-y / SPEC.pixel_size, -x / SPEC.pixel_size), order=1, mode="reflect"
        )
    path = folder / "aligned.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(total)
    return MovieOutputs(movie.stem, folder / "none.star", None, path, None, None)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.float64]]:
    folder = tmp_path_factory.mktemp("pictures")
    (movie,) = write_movies(folder, 1, SPEC, seed=6)
    outputs = aligned(folder, movie)
    pictures = make_pictures(
        movie, folder / "gain.mrc", outputs, folder / "a" / "b", pixel_size=SPEC.pixel_size
    )
    assert pictures.spectrum_edge == 6
    thumbnail = make_thumbnail(outputs, folder / "a" / "b", SPEC.pixel_size)
    names = ("before", "after", "spectrum_before", "spectrum_after")
    seen = {}
    for name, path in [("thumbnail", thumbnail), *((name, getattr(pictures, name)) for name in names)]:
        with Image.open(path) as image:
            seen[name] = np.asarray(image.convert("L"), dtype=float)
    return seen


def test_sizes_and_contrast(shown: dict[str, NDArray[np.float64]]) -> None:
    assert shown["thumbnail"].shape == (256, 256)
    assert shown["before"].shape == shown["after"].shape == (512, 512)
    assert shown["spectrum_after"].shape == (384, 384)
    for picture in shown.values():
        assert 60 < picture.mean() < 180
        assert picture.std() > 15


def test_the_aligned_view_is_sharper(shown: dict[str, NDArray[np.float64]]) -> None:
    def detail(picture: NDArray[np.float64]) -> float:
        fine = ndimage.gaussian_filter(picture, 2) - ndimage.gaussian_filter(picture, 6)
        return float(fine.std())

    assert detail(shown["after"]) > 1.15 * detail(shown["before"])


def test_thon_rings_show_after_alignment(shown: dict[str, NDArray[np.float64]]) -> None:
    def rings(picture: NDArray[np.float64]) -> float:
        """Scatter of the radial mean: rings are bright and dark all round."""
        y, x = np.indices(picture.shape)
        radius = np.hypot(y - 191.5, x - 191.5).astype(int)
        profile = np.bincount(radius.ravel(), picture.ravel()) / np.bincount(radius.ravel())
        return float(profile[30:150].std())

    assert rings(shown["spectrum_after"]) > 5
    assert rings(shown["spectrum_after"]) > 1.3 * rings(shown["spectrum_before"])


def test_the_view_has_its_top_row_first(tmp_path: Path) -> None:
    image = np.random.default_rng(1).normal(100, 1, (64, 64)).astype(np.float32)
    image[:32] -= 3  # the lower half is darker
    frames = np.stack([image, image])
    with mrcfile.new(tmp_path / "m.mrc") as mrc:
        mrc.set_data(frames)
        mrc.set_image_stack()
    with mrcfile.new(tmp_path / "aligned.mrc") as mrc:
        mrc.set_data(image)
    outputs = MovieOutputs("m", tmp_path / "m.star", None, tmp_path / "aligned.mrc", None, None)
    pictures = make_pictures(tmp_path / "m.mrc", None, outputs, tmp_path, pixel_size=1.0)
    for path in (pictures.before, pictures.after):
        with Image.open(path) as shown:
            grey = np.asarray(shown.convert("L"), dtype=float)
        assert grey[:32].mean() > grey[32:].mean() + 30


def test_a_spectrum_shows_a_period_at_its_place() -> None:
    x = np.arange(600)
    image = np.random.default_rng(1).normal(0, 1, (600, 600)) + np.sin(2 * np.pi * x * 2 / 24)  # 24 A, in x
    spectrum = power_spectrum(image.astype(np.float32), pixel_size=2, edge=8)
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    assert row == pytest.approx(192, abs=2)
    assert abs(column - 191.5) == pytest.approx(192 * 8 / 24, abs=3)


def test_frames_of_all_kinds_are_summed_without_overflow(tmp_path: Path) -> None:
    for dtype, value in (("int8", 127), ("uint16", 65_000), ("float32", 0.25)):
        path = tmp_path / f"{dtype}.mrc"
        with mrcfile.new(path) as mrc:
            mrc.set_data(np.full((100, 4, 6), value, dtype))
            mrc.set_image_stack()
        assert mean_frame(path) == pytest.approx(np.full((4, 6), value))


def test_a_gain_that_does_not_fit_is_told(tmp_path: Path) -> None:
    (movie,) = write_movies(tmp_path, 1, MovieSpec(size=64, frames=2, pixel_size=3))
    with pytest.raises(InvalidInput, match="64 x 32 pixels"):
        mean_frame(movie, np.ones((32, 64), np.float32))


def test_a_broken_movie_is_told_and_a_flat_one_is_drawn(tmp_path: Path) -> None:
    (movie,) = write_movies(tmp_path, 1, MovieSpec(size=64, frames=2, pixel_size=3, gain=False))
    outputs = MovieOutputs("m", tmp_path / "m.star", None, tmp_path / "flat.mrc", None, None)
    with mrcfile.new(tmp_path / "flat.mrc") as mrc:
        mrc.set_data(np.zeros((64, 64), np.float32))
    assert make_pictures(movie, None, outputs, tmp_path, pixel_size=3.0).after.is_file()
    data = bytearray(movie.read_bytes())
    data[300:600] = bytes(300)
    movie.write_bytes(bytes(data))
    with pytest.raises(InvalidInput):
        read_image(movie)
