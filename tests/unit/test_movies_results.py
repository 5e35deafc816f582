"""Results of an alignment, from files such as RELION and Scipion write them."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from scipion_cloud.errors import InvalidInput
from scipion_cloud.tools.movies.results import MovieOutputs, read_motion, scan_results
from scipion_cloud.tools.movies.star import MicrographRow, Optics, movies_star, read_blocks

GENERAL = """
# version 30001

data_general

_rlnImageSizeX                                     2000
_rlnImageSizeY                                     1000
_rlnImageSizeZ                                        4
_rlnMicrographMovieName                    my movie (1).tiff
_rlnMicrographBinning                          1.000000
_rlnMicrographOriginalPixelSize                2.000000
_rlnMicrographDoseRate                         1.500000
_rlnMicrographPreExposure                      0.000000
_rlnMicrographStartFrame                              1
_rlnMotionModelVersion                                0
"""
SHIFTS = """
data_global_shift

loop_
_rlnMicrographFrameNumber #1
_rlnMicrographShiftX #2
_rlnMicrographShiftY #3
           1     0.000000     0.000000
           2    -3.000000     4.000000
           3    -6.000000     8.000000
           4    -6.000000     9.000000
"""
HOT = """
data_hot_pixels

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
  542.000000    55.000000
  523.000000    57.000000
"""


def model(**coefficients: float) -> str:
    """A local motion model with some coefficients, named x0 to x17 and y0 to y17, and the others 0."""
    names = [f"{axis}{n}" for axis in "xy" for n in range(18)]
    rows = [f"{n} {coefficients.get(name, 0)}" for n, name in enumerate(names)]
    head = "\ndata_local_motion_model\n\nloop_\n_rlnMotionModelCoeffsIdx #1\n_rlnMotionModelCoeff #2\n"
    return head + "\n".join(rows) + "\n"


def outputs_of(folder: Path, text: str) -> MovieOutputs:
    star = folder / "m.star"
    star.write_text(text)
    return MovieOutputs("m", star, None, None, None, None)


def test_motion_is_the_drift_in_angstrom(tmp_path: Path) -> None:
    motion = read_motion(outputs_of(tmp_path, GENERAL + SHIFTS + HOT))
    assert motion.frames.tolist() == [1, 2, 3, 4]
    assert motion.x.tolist() == [0, 6, 12, 12]
    assert motion.y.tolist() == [0, -8, -16, -18]
    # 4 e/A2 at 1.5 a frame: the second frame is early, as RELION counts.
    assert (motion.total, motion.early, motion.late) == (22, 10, 12)
    assert (motion.hot_pixels, motion.local) == (2, None)
    assert (motion.width, motion.height) == (4000, 2000)


@pytest.mark.parametrize("sentinel", ["-9999", "nan", "inf", "-1e30"])
def test_no_wild_number_comes_out(tmp_path: Path, sentinel: str) -> None:
    text = GENERAL + SHIFTS.replace("-6.000000     8.000000", f"{sentinel} {sentinel}")
    motion = read_motion(outputs_of(tmp_path, text))
    assert motion.frames.tolist() == [1, 2, 4]
    assert motion.x.tolist() == [0, 6, 12]
    assert (motion.total, motion.early, motion.late) == (None, None, None)


def test_nothing_observed_at_all(tmp_path: Path) -> None:
    shifts = SHIFTS
    for row in SHIFTS.splitlines()[-4:]:
        shifts = shifts.replace(row, f"{row.split()[0]} -9999 -9999")
    motion = read_motion(outputs_of(tmp_path, GENERAL + shifts + model(x3=1)))
    assert (len(motion.x), motion.total, motion.local) == (0, None, None)


def test_without_a_dose_nobody_knows_what_is_early(tmp_path: Path) -> None:
    motion = read_motion(outputs_of(tmp_path, GENERAL.replace("1.500000", "-1") + SHIFTS))
    assert (motion.total, motion.early, motion.late) == (22, None, None)


def test_the_local_model_is_evaluated_on_a_grid(tmp_path: Path) -> None:
    # A shift of 0.5 * (frame - 1) * x in x, and of -2 * (frame - 1)^2 * y^2 in y; x and y from -0.5 to 0.5.
    motion = read_motion(outputs_of(tmp_path, GENERAL + SHIFTS + model(x3=0.5, y13=-2)), grid=(4, 2))
    local = motion.local
    assert local is not None
    assert local.u.tolist() == [0.125, 0.375, 0.625, 0.875]
    assert local.v.tolist() == [0.25, 0.75]
    assert local.x.shape == local.y.shape == (4, 2, 4)
    for t in range(4):
        assert local.x[t, 0] == pytest.approx(
            -2 * 0.5 * t * (local.u - 0.5)
        )  # 2 A a pixel; the drift is opposite
        assert local.y[t, :, 0] == pytest.approx(2 * 2 * t**2 * (local.v - 0.5) ** 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data_general\n",
        GENERAL,
        SHIFTS,
        GENERAL + SHIFTS.replace("ShiftX", "Other"),
        GENERAL.replace("2.000000", "-1") + SHIFTS,
        GENERAL.replace("2.000000", "two") + SHIFTS,
        "\0\0\0",
    ],
)
def test_a_damaged_star_file_is_explained(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match=r"m\.star .* again"):
        read_motion(outputs_of(tmp_path, text))


@pytest.mark.parametrize("change", ["x3=nan", "short", "huge"])
def test_a_damaged_local_model_is_no_data(tmp_path: Path, change: str) -> None:
    text = {"x3=nan": model(x3=float("nan")), "short": model()[:-40], "huge": model(x3=1e30)}[change]
    assert read_motion(outputs_of(tmp_path, GENERAL + SHIFTS + text)).local is None


def lay_out(extra: Path, stem: str, root: str | None = None) -> None:
    """The files of one movie as Scipion moves them, complete."""
    extra.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(extra / f"{root or stem}_aligned_mic_DW.mrc") as mrc:
        mrc.set_data(np.zeros((16, 16), np.float32))
    (extra / f"{stem}.star").write_text(GENERAL + SHIFTS)
    (extra / f"{stem}.log").touch()
    (extra / f"{stem}corrected_micrographs.star").write_text("data_micrographs\n")


def test_complete_movies_are_found(tmp_path: Path) -> None:
    assert scan_results(tmp_path) == []
    extra = tmp_path / "extra"
    names = ["b", "a movie 'with' spaces", "x" * 200]
    for name in names:
        lay_out(extra, name)
    lay_out(extra, "fraction.mrc", root="fraction")  # Scipion takes a second ending off
    (extra / "DONE").mkdir()
    found = scan_results(tmp_path)
    assert [outputs.stem for outputs in found] == sorted([*names, "fraction.mrc"])
    assert all(outputs.micrograph == outputs.dose_weighted for outputs in found)
    assert read_motion(found[0]).total == 22
    assert found[0].log == extra / f"{found[0].stem}.log"
    assert found[0].unweighted is None


@pytest.mark.parametrize("missing", ["m_aligned_mic_DW.mrc", "m.star", "mcorrected_micrographs.star"])
@pytest.mark.parametrize("how", ["gone", "empty"])
def test_half_moved_movies_are_not_complete(tmp_path: Path, missing: str, how: str) -> None:
    extra = tmp_path / "extra"
    lay_out(extra, "m")
    lay_out(extra, "whole")
    assert len(scan_results(tmp_path)) == 2
    if how == "gone":
        (extra / missing).unlink()
    else:
        (extra / missing).write_bytes(b"")
    assert [outputs.stem for outputs in scan_results(tmp_path)] == ["whole"]


def test_a_micrograph_that_is_being_copied_is_not_complete(tmp_path: Path) -> None:
    lay_out(tmp_path / "extra", "m")
    micrograph = tmp_path / "extra" / "m_aligned_mic_DW.mrc"
    data = micrograph.read_bytes()
    for length in (100, 1024, len(data) - 1):
        micrograph.write_bytes(data[:length])
        assert scan_results(tmp_path) == []
    micrograph.write_bytes(data)
    assert len(scan_results(tmp_path)) == 1


def test_three_thousand_movies_are_scanned_in_no_time(tmp_path: Path) -> None:
    extra = tmp_path / "extra"
    lay_out(extra, "m0")
    for n in range(1, 3000):
        for name in ("{}_aligned_mic_DW.mrc", "{}.star", "{}corrected_micrographs.star"):
            (extra / name.format(f"m{n}")).hardlink_to(extra / name.format("m0"))
    known = scan_results(tmp_path)
    assert len(known) == 3000
    assert scan_results(tmp_path, known) == known
    (extra / "m7_aligned_mic_DW.mrc").unlink()
    assert len(scan_results(tmp_path, known)) == 2999


def test_the_star_file_for_download(tmp_path: Path) -> None:
    rows = [
        MicrographRow("micrographs/a_DW.mrc", "a.star", 12.5, 4.25, 8.25),
        MicrographRow("micrographs/b c_DW.mrc", "b c.star", None, None, None),
    ]
    path = tmp_path / "corrected_micrographs.star"
    path.write_text(movies_star(rows, Optics(2.2, 1.1, 300, 2.7, 0.1)))
    read = starfile.read(path)
    assert read["optics"]["rlnMicrographPixelSize"][0] == 2.2
    assert read["optics"]["rlnMicrographOriginalPixelSize"][0] == 1.1
    micrographs = read["micrographs"]
    assert list(micrographs["rlnMicrographName"]) == ["micrographs/a_DW.mrc", "micrographs/b c_DW.mrc"]
    assert list(micrographs["rlnAccumMotionEarly"]) == [4.25, -9999]
    assert list(micrographs["rlnOpticsGroup"]) == [1, 1]
    for name in ("new\nline.mrc", 'quote".mrc', ""):
        with pytest.raises(InvalidInput, match="Rename"):
            movies_star([MicrographRow(name, "a.star", 1.0, 1.0, 1.0)], Optics(1.0, 1.0, 300, 2.7, 0.1))


def test_blocks_keep_names_with_spaces() -> None:
    blocks = read_blocks(GENERAL + SHIFTS)
    general = blocks["general"]
    assert general.rows[0][general.labels.index("rlnMicrographMovieName")] == "my movie (1).tiff"
    assert blocks["global_shift"].numbers("rlnMicrographShiftY").tolist() == [0, 4, 8, 9]
