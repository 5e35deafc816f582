"""The simulator: what it writes is what its truth says."""

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from numpy.typing import NDArray

from scipion_cloud.cli.main import main
from scipion_cloud.errors import InvalidInput
from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.examples.detector import count, ideal_camera
from scipion_cloud.examples.motion import make_drift
from scipion_cloud.examples.optics import contrast_transfer, damage, interaction, wavelength
from scipion_cloud.examples.structure import DIAMETER, projections

SMALL = MovieSpec(size=128, frames=3, pixel_size=3.0)


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    one = write_movies(tmp_path / "one", 2, SMALL, seed=4)
    two = write_movies(tmp_path / "two", 3, SMALL, seed=4)
    other = write_movies(tmp_path / "other", 1, SMALL, seed=5)
    assert [path.name for path in one] == ["ribosome_001.tiff", "ribosome_002.tiff"]
    for a, b in zip(one, two, strict=False):
        assert a.read_bytes() == b.read_bytes()
    assert one[0].read_bytes() != other[0].read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "gain.mrc",
        "ribosome_001.tiff",
        "ribosome_002.tiff",
        "truth.json",
    ]


def test_tiff_and_mrc_show_the_same_picture(tmp_path: Path) -> None:
    (tiff,) = write_movies(tmp_path / "tiff", 1, SMALL)
    (mrc,) = write_movies(tmp_path / "mrc", 1, MovieSpec(size=128, frames=3, pixel_size=3.0, format="mrcs"))
    seen = tifffile.imread(tiff)
    assert seen.dtype == np.uint8
    assert np.array_equal(np.minimum(seen, 127)[:, ::-1], mrcfile.read(mrc))  # TIFF has the top row first
    assert (tmp_path / "tiff" / "gain.mrc").read_bytes()[1024:] == (
        tmp_path / "mrc" / "gain.mrc"
    ).read_bytes()[1024:]


def test_large_counts_take_sixteen_bits(tmp_path: Path) -> None:
    bright = MovieSpec(size=64, frames=2, pixel_size=3.0, dose_per_frame=30, format="mrc", gain=False)
    (movie,) = write_movies(tmp_path, 1, bright)
    counts = mrcfile.read(movie)
    assert counts.dtype == np.uint16
    assert counts.mean() == pytest.approx(30 * 9, rel=0.02)
    assert not (tmp_path / "gain.mrc").exists()


def test_the_specimen_moves_as_the_truth_says(tmp_path: Path) -> None:
    # So many electrons that two frames alone can be laid over each other.
    spec = MovieSpec(
        size=384, frames=3, pixel_size=2, dose_per_frame=40, local_drift=0, gain=False, format="mrc"
    )
    (movie,) = write_movies(tmp_path, 1, spec, seed=9)
    frames = mrcfile.read(movie).astype(np.float32)
    drift = json.loads((tmp_path / "truth.json").read_text())["movies"][0]["drift_A"]
    for n in (1, 2):
        x, y = moved(frames[0], frames[n])
        assert (x, y) == pytest.approx((drift["x"][n] / 2, drift["y"][n] / 2), abs=0.75)  # px


def moved(first: NDArray[np.float32], then: NDArray[np.float32]) -> tuple[int, int]:
    """By how many pixels (x, y) an image moved: the peak of the smoothed cross-correlation."""
    spectra = [np.fft.rfft2(image - image.mean()) for image in (first, then)]
    frequency = np.hypot(np.fft.fftfreq(first.shape[0])[:, None], np.fft.rfftfreq(first.shape[1])[None, :])
    smoothed = np.fft.irfft2(
        spectra[1] * spectra[0].conj() * np.exp(-((frequency / 0.1) ** 2)), s=first.shape
    )
    y, x = np.unravel_index(smoothed.argmax(), smoothed.shape)
    half = first.shape[0] // 2
    return int((x + half) % (2 * half) - half), int((y + half) % (2 * half) - half)


def test_the_gain_reference_evens_out_the_camera(tmp_path: Path) -> None:
    (movie,) = write_movies(tmp_path, 1, MovieSpec(size=256, frames=30, pixel_size=3.0, format="mrc"))
    mean = mrcfile.read(movie).mean(axis=0)
    gain = mrcfile.read(tmp_path / "gain.mrc")
    dead = gain == 0
    assert 0 < dead.sum() < 10
    assert not mean[dead].any()
    live = ~dead & (mean < 100)  # hot pixels fire in every frame
    assert gain[live].mean() == pytest.approx(1, abs=0.01)
    assert np.corrcoef(mean[live], 1 / gain[live])[0, 1] > 0.5
    assert abs(np.corrcoef((mean * gain)[live], 1 / gain[live])[0, 1]) < 0.02
    assert (~live & ~dead).sum() == pytest.approx(dead.sum(), abs=1)


@pytest.mark.parametrize("rate", [0.7, 3.0, 11.0])
def test_counts_are_poisson(rate: float) -> None:
    electrons = np.full((400, 400), rate, np.float32)
    counts = count(np.random.default_rng(1), electrons, ideal_camera(400), rate)
    assert counts.mean() == pytest.approx(rate, rel=0.01)
    assert counts.var() == pytest.approx(rate, rel=0.02)
    assert (counts == 0).mean() == pytest.approx(np.exp(-rate), abs=0.005)


def test_optics_agree_with_the_textbook() -> None:
    assert wavelength(300) == pytest.approx(0.019687, rel=1e-4)
    assert wavelength(200) == pytest.approx(0.025079, rel=1e-4)
    assert interaction(300) == pytest.approx(6.526e-4, rel=1e-3)
    # Without Cs and amplitude contrast the zeros lie where lambda * defocus * s^2 is a whole number.
    zero = np.array([np.sqrt(n / (wavelength(300) * 20_000)) for n in (1, 2, 3)], np.float32)
    assert contrast_transfer(zero, 20_000, 300, 0, 0) == pytest.approx(0, abs=1e-4)
    assert contrast_transfer(np.zeros(1, np.float32), 20_000, 300, 2.7, 0.1) == pytest.approx(-0.1)
    s = np.array([0.0, 0.05, 0.1, 0.3], np.float32)
    assert damage(s, 0, 300) == pytest.approx(1)
    left = damage(s, 20, 300)
    assert left[0] == 1
    assert (np.diff(left) < 0).all()
    assert (damage(s, 20, 200)[1:] < left[1:]).all()


def test_projections_have_the_weight_of_a_ribosome() -> None:
    # The integral of the potential does not depend on the orientation, nor on the pixel size.
    weights = [image.sum() * size**2 for size in (3.0, 5.0) for image in projections(2, size, seed=1)]
    assert max(weights) == pytest.approx(min(weights), rel=0.01)
    image = projections(2, 5.0, seed=1)[0]
    edge = (image.shape[0] - DIAMETER / 5) / 2
    assert edge > 0
    assert image[image.shape[0] // 2].max() > 10 * np.abs(image[:3]).max()


def test_drift_is_large_at_first_and_local_drift_has_no_mean() -> None:
    drift = make_drift(np.random.default_rng(3), 20, (20, 20), local=5)
    steps = np.hypot(np.diff(drift.x), np.diff(drift.y))
    assert (drift.x[0], drift.y[0]) == (0, 0)
    assert 10 < np.hypot(drift.x[-1], drift.y[-1]) <= 20
    assert steps[0] > 3 * steps[-1]
    u, v = np.meshgrid(*2 * [(np.arange(50) + 0.5) / 50 - 0.5])
    for part in drift.local_at(u, v, 19):
        assert abs(part.mean()) < 0.01
        assert np.abs(part).max() <= 5.01


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"size": 10}, "size"),
        ({"frames": 1}, "frames"),
        ({"pixel_size": 0.0}, "pixel_size"),
        ({"pixel_size": float("nan")}, "pixel_size"),
        ({"drift": (20.0, 10.0)}, "drift"),
        ({"format": "eer"}, "eer"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        MovieSpec(**values)  # type: ignore[arg-type]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "ribosome_001.tiff").mkdir()
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_movies(tmp_path, 1, SMALL)
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="Choose another"):
        write_movies(tmp_path / "file" / "folder", 1, SMALL)


def test_the_command_tells_programs_and_people(tmp_path: Path) -> None:
    options = [
        "--count=2",
        "--size=64",
        "--frames=2",
        "--pixel-size=3",
        "--format=mrc",
        "--no-gain",
        "--seed=8",
    ]
    done = CliRunner().invoke(main, ["example", "movies", str(tmp_path), *options, "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert [Path(name).name for name in answer["movies"]] == ["ribosome_001.mrc", "ribosome_002.mrc"]
    assert all(Path(name).is_file() for name in [*answer["movies"], answer["truth"]])
    assert (answer["gain"], answer["pixel_size_A"]) == (None, 3)
    assert json.loads(Path(answer["truth"]).read_text())["seed"] == 8
    done = CliRunner().invoke(main, ["example", "movies", str(tmp_path), "--frames", "1"])
    assert (done.exit_code, "frames" in done.output) == (1, True)


def test_progress_is_told_frame_by_frame(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_movies(tmp_path, 2, SMALL, report=lambda done, total: told.append((done, total)))
    assert told == [(n, 6) for n in range(1, 7)]
