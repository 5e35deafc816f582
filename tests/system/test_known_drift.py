"""Real RELION on simulated movies: what it finds, as we read it, is what the movies were made with."""

import json
import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
import tifffile
from numpy.typing import NDArray

from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.tools.movies.frames import mean_frame, read_gain, read_image
from scipion_cloud.tools.movies.pictures import make_pictures
from scipion_cloud.tools.movies.results import MovieOutputs, read_motion, scan_results
from scipion_cloud.tools.movies.star import MicrographRow, Optics, movies_star

pytestmark = pytest.mark.scipion

PIXEL_SIZE = 1.5
INPUT = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
opticsGroup1 1 1.5 300 2.7 0.1

data_movies

loop_
_rlnMicrographMovieName #1
_rlnOpticsGroup #2
"""


def align(folder: Path, movies: list[Path], *extra: str) -> Path:
    """Run RELION and lay its files out as a run of Scipion has them. Returns the run's folder."""
    (folder / "movies.star").write_text(INPUT + "".join(f"{movie.name} 1\n" for movie in movies))
    command = "relion_run_motioncorr --use_own --i movies.star --o out/ --j 2 --angpix 1.5"
    gain = () if "--gainref" in extra else ("--gainref", "gain.mrc")
    done = subprocess.run(
        [*command.split(), "--voltage", "300", *gain, *extra],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    run = folder / "run"
    (run / "extra").mkdir(parents=True)
    for movie in movies:
        shutil.copy(folder / "out" / f"{movie.stem}.mrc", run / "extra" / f"{movie.stem}_aligned_mic_DW.mrc")
        shutil.copy(folder / "out" / f"{movie.stem}.star", run / "extra")
        last = run / "extra" / f"{movie.stem}corrected_micrographs.star"
        shutil.copy(folder / "out" / "corrected_micrographs.star", last)
    return run


def distance(x: NDArray[np.float64], y: NDArray[np.float64], truth: dict[str, list[float]]) -> float:
    """RMS distance (px) of two paths; where a path begins is nobody's knowledge."""
    dx, dy = x - np.array(truth["x"]), y - np.array(truth["y"])
    return float(np.sqrt(np.mean((dx - dx.mean()) ** 2 + (dy - dy.mean()) ** 2))) / PIXEL_SIZE


@pytest.mark.parametrize("kind", ["tiff", "mrc"])
def test_global_drift_is_found_in_both_formats(tmp_path: Path, kind: str) -> None:
    spec = MovieSpec(size=768, frames=16, format=kind)  # type: ignore[arg-type]
    movies = write_movies(tmp_path, 2, spec, seed=3)
    run = align(tmp_path, movies, "--dose_weighting", "--dose_per_frame", "1.25")
    truth = json.loads((tmp_path / "truth.json").read_text())["movies"]
    results = scan_results(run)
    assert [outputs.stem for outputs in results] == [movie.stem for movie in movies]
    for outputs, known in zip(results, truth, strict=True):
        motion = read_motion(outputs)
        assert distance(motion.x, motion.y, known["drift_A"]) < 0.6
        x, y = known["drift_A"]["x"], known["drift_A"]["y"]
        assert motion.total == pytest.approx(np.hypot(np.diff(x), np.diff(y)).sum(), rel=0.25)
        assert motion.early is not None
        assert motion.late is not None
        assert motion.early + motion.late == pytest.approx(motion.total)
        assert (motion.width, motion.height) == (768 * PIXEL_SIZE, 768 * PIXEL_SIZE)
        # The camera's pattern is gone: the reference was applied the right way round.
        gain = read_image(tmp_path / "gain.mrc")
        assert abs(columns(read_image(outputs.micrograph), gain)) < 0.1
        assert columns(mean_frame(tmp_path / known["file"]), gain) < -0.8
        assert abs(columns(mean_frame(tmp_path / known["file"], gain), gain)) < 0.1


def test_local_drift_is_found(tmp_path: Path) -> None:
    spec = MovieSpec(size=1536, frames=12, dose_per_frame=3, local_drift=8)
    movies = write_movies(tmp_path, 1, spec, seed=5)
    run = align(tmp_path, movies, "--patch_x", "4", "--patch_y", "4")
    (outputs,) = scan_results(run)
    local = read_motion(outputs, grid=(6, 5)).local
    assert local is not None
    assert local.x.shape == (12, 5, 6)
    known = json.loads((tmp_path / "truth.json").read_text())["movies"][0]["local_drift"]
    u, v = np.meshgrid(local.u - 0.5, local.v - 0.5)
    terms = np.stack([u, v, u * u - 1 / 12, v * v - 1 / 12, u * v], axis=-1)
    for found, name in ((local.x, "x_A"), (local.y, "y_A")):
        truth = known["settled"][-1] * (terms @ np.array(known[name]))
        assert np.corrcoef(truth.ravel(), found[-1].ravel())[0, 1] > 0.9
        error = (truth - truth.mean()) - (found[-1] - found[-1].mean())
        assert np.sqrt(np.mean(error**2)) < 1.0  # A


@pytest.mark.parametrize("flip", [0, 1, 2])
@pytest.mark.parametrize("rotation", [0, 1, 2, 3])
def test_a_gain_is_turned_as_relion_turns_it(tmp_path: Path, rotation: int, flip: int) -> None:
    still = MovieSpec(size=256, frames=8, drift=(0, 0), local_drift=0)
    (movie,) = write_movies(tmp_path, 1, still, seed=7)
    right = read_gain(tmp_path / "gain.mrc")
    back = right[::-1] if flip == 1 else right[:, ::-1] if flip == 2 else right
    with mrcfile.new(tmp_path / "gain.mrc", overwrite=True) as mrc:
        mrc.set_data(np.ascontiguousarray(np.rot90(back, rotation)))
    assert np.array_equal(read_gain(tmp_path / "gain.mrc", rotation, flip), right)
    run = align(tmp_path, [movie], "--gain_rot", str(rotation), "--gain_flip", str(flip))
    (outputs,) = scan_results(run)
    assert pixels(mean_frame(movie), right) > 0.1
    assert abs(pixels(read_image(outputs.micrograph), right)) < 0.05


def test_a_gain_in_tiff_has_its_top_row_first(tmp_path: Path) -> None:
    still = MovieSpec(size=256, frames=8, drift=(0, 0), local_drift=0)
    (movie,) = write_movies(tmp_path, 1, still, seed=7)
    right = read_gain(tmp_path / "gain.mrc")
    tifffile.imwrite(tmp_path / "gain.tif", right[::-1])
    assert np.array_equal(read_gain(tmp_path / "gain.tif"), right)
    (outputs,) = scan_results(align(tmp_path, [movie], "--gainref", "gain.tif"))
    assert abs(pixels(read_image(outputs.micrograph), right)) < 0.05


def test_relion_reads_the_star_file_for_download(tmp_path: Path) -> None:
    rows = [MicrographRow(f"m{n}.mrc", f"m{n}.star", float(9 - n), 1.5, None) for n in range(3)]
    (tmp_path / "mics.star").write_text(movies_star(rows, Optics(3.0, 1.5, 300, 2.7, 0.1)))
    command = [
        "relion_star_handler",
        "--i",
        "mics.star",
        "--o",
        "chosen.star",
        "--select",
        "rlnAccumMotionTotal",
    ]
    done = subprocess.run(
        [*command, "--minval", "7.5"], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    chosen = starfile.read(tmp_path / "chosen.star")
    assert list(chosen["micrographs"]["rlnMicrographName"]) == ["m0.mrc", "m1.mrc"]
    assert float(chosen["optics"]["rlnMicrographPixelSize"].iloc[0]) == 3.0


def test_pictures_of_a_real_alignment(tmp_path: Path) -> None:
    (movie,) = write_movies(tmp_path, 1, MovieSpec(size=512, frames=10), seed=2)
    run = align(tmp_path, [movie], "--bin_factor", "2")
    (outputs,) = scan_results(run)
    assert isinstance(outputs, MovieOutputs)
    pictures = make_pictures(
        movie, tmp_path / "gain.mrc", outputs, tmp_path / "pictures", pixel_size=PIXEL_SIZE
    )
    assert pictures.spectrum_edge == 6.0
    assert all(
        path.stat().st_size > 1000 for path in (pictures.before, pictures.after, pictures.spectrum_after)
    )


def columns(image: NDArray[np.float32], gain: NDArray[np.float32]) -> float:
    """How much of the camera's columns is seen in an image: a correlation, -1 if nothing was corrected."""
    half = image.shape[0] // 2
    expected, seen = (fine(part[half:].mean(axis=0)) for part in (gain, image))
    return float(np.corrcoef(expected, seen)[0, 1])


def pixels(image: NDArray[np.float32], gain: NDArray[np.float32]) -> float:
    """How much of the camera's single pixels is seen in an image of a specimen at rest: a correlation."""
    alive = gain > 0
    return float(np.corrcoef(1 / gain[alive], image[alive])[0, 1])


def fine(line: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is left of a line without its slow part."""
    slow = np.convolve(line, np.ones(15) / 15, "same")
    difference: NDArray[np.float32] = (line - slow)[16:-16]
    return difference
