"""Headers of movies: what they tell, and every file that is not what it seems."""

import os
import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from levels import examples
from scipion_cloud.errors import InvalidInput
from scipion_cloud.tools.movies.info import check_pixel_size, read_image_info, read_info

FRAMES = np.arange(4 * 30 * 40, dtype=np.uint16).reshape(4, 30, 40) % 200


def write_tiff(path: Path, frames: np.ndarray = FRAMES, **options: object) -> Path:
    with tifffile.TiffWriter(path, **options.pop("writer", {})) as tiff:  # type: ignore[arg-type]
        for frame in frames:
            tiff.write(frame, metadata=None, **({"photometric": "minisblack"} | options))  # type: ignore[arg-type]
    return path


def write_mrc(path: Path, frames: np.ndarray = FRAMES, pixel_size: float = 1.2) -> Path:
    with mrcfile.new(path) as mrc:
        mrc.set_data(frames)
        mrc.set_image_stack()
        mrc.voxel_size = pixel_size
    return path


def resolution(pixel_size: float) -> dict[str, object]:
    return {"resolution": (1e8 / pixel_size, 1e8 / pixel_size), "resolutionunit": "CENTIMETER"}


@pytest.mark.parametrize(
    "writer", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"bigtiff": True, "byteorder": ">"}]
)
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_tiff(tmp_path: Path, writer: dict[str, object], compression: str | None) -> None:
    path = write_tiff(
        tmp_path / "a.tif", writer=writer, compression=compression, rowsperstrip=7, **resolution(0.83)
    )
    info = read_info(path)
    assert (info.format, info.nx, info.ny, info.frames, info.dtype) == ("TIFF", 40, 30, 4, "uint16")
    assert info.pixel_size == pytest.approx(0.83, abs=1e-4)
    assert info.size == (40, 30)
    assert info.warnings == ()


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32", "float16"])
@pytest.mark.parametrize("name", ["a.mrc", "a.mrcs", "a.MRC"])
def test_mrc(tmp_path: Path, dtype: str, name: str) -> None:
    info = read_info(write_mrc(tmp_path / name, (FRAMES % 100).astype(dtype)))
    assert (info.format, info.nx, info.ny, info.frames, info.dtype) == ("MRC", 40, 30, 4, dtype)
    assert info.pixel_size == pytest.approx(1.2)


def test_mrc_of_the_other_byte_order_with_an_extended_header(tmp_path: Path) -> None:
    path = tmp_path / "old.mrc"
    header = bytearray(1024)
    struct.pack_into(">4i", header, 0, 40, 30, 4, 1)
    struct.pack_into(">3i3f", header, 28, 40, 30, 4, 40 * 2.5, 30 * 2.5, 10)
    struct.pack_into(">i", header, 92, 512)
    path.write_bytes(bytes(header) + bytes(512 + 40 * 30 * 4 * 2))
    info = read_info(path)
    assert (info.nx, info.ny, info.frames, info.pixel_size) == (40, 30, 4, 2.5)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidInput, match="incomplete"):
        read_info(path)


@pytest.mark.parametrize(
    ("description", "options", "expected"),
    [
        ("ImageJ=1.53t\nimages=4\nunit=nm\n", {"resolution": (10, 10), "resolutionunit": "NONE"}, 1.0),
        ("ImageJ=1.53t\nunit=micron\n", {"resolution": (9000, 9000), "resolutionunit": "NONE"}, 1.1111),
        ("ImageJ=1.53t\nunit=Angstrom\n", {"resolution": (0.5, 0.5), "resolutionunit": "NONE"}, 2.0),
        ("SerialEM: counting mode", resolution(1.35), 1.35),
        ("a scan", {"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ("nothing known", {}, None),
    ],
)
def test_pixel_size_of_tiff(
    tmp_path: Path, description: str, options: dict[str, object], expected: float | None
) -> None:
    info = read_info(write_tiff(tmp_path / "a.tif", description=description, **options))
    assert info.pixel_size == (None if expected is None else pytest.approx(expected, abs=1e-3))


def test_an_absurd_pixel_size_is_not_believed(tmp_path: Path) -> None:
    info = read_info(write_mrc(tmp_path / "a.mrc", pixel_size=900))
    assert info.pixel_size is None
    assert "900 A" in info.warnings[0]
    assert read_info(write_mrc(tmp_path / "zero.mrc", pixel_size=0)).pixel_size is None
    exactly = read_info(write_mrc(tmp_path / "one.mrc", pixel_size=1))
    assert exactly.pixel_size == 1
    assert "exactly 1 A" in exactly.warnings[0]


@pytest.mark.parametrize("value", [0, -1.0, 0.001, 1e6, float("nan"), float("inf")])
def test_a_wrong_pixel_size_is_explained(value: float) -> None:
    with pytest.raises(InvalidInput, match="cannot be right"):
        check_pixel_size(value)
    assert check_pixel_size(1.06) == 1.06


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    for whole in (write_tiff(tmp_path / "a.tif", compression="lzw"), write_mrc(tmp_path / "a.mrc")):
        data = whole.read_bytes()
        cut = tmp_path / f"cut{whole.suffix}"
        for length in {7, 100, 1023, 1024, len(data) // 2, len(data) - 1}:
            cut.write_bytes(data[:length])
            with pytest.raises(InvalidInput, match=r"incomplete|damaged|neither"):
                read_info(cut)


def test_trailing_bytes_are_mentioned(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "a.mrc")
    path.write_bytes(path.read_bytes() + b"more")
    assert "4 bytes more" in read_info(path).warnings[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.mrc", b"The session of Tuesday\n" * 100, "is a text"),
        ("empty.tiff", b"", "is empty"),
        ("noise.mrc", bytes(range(256)) * 20, "neither TIFF nor MRC"),
        ("page.tif", b"<!DOCTYPE html><html>Not found</html>", "is a text"),
        ("movie.eer", b"II+\0" + bytes(20), "EER"),
        ("picture.tif", b"\x89PNG\r\n\x1a\n" + bytes(2000), "neither TIFF nor MRC"),
    ],
)
def test_what_is_no_movie_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as caught:
        read_info(path)
    assert name in str(caught.value)


def test_an_image_is_not_a_movie(tmp_path: Path) -> None:
    image = write_tiff(tmp_path / "gain.tif", FRAMES[:1])
    with pytest.raises(InvalidInput, match="is an image, not a movie"):
        read_info(image)
    assert read_image_info(image).frames == 1


def test_colours_and_odd_frames_are_refused(tmp_path: Path) -> None:
    colours = tmp_path / "photo.tif"
    tifffile.imwrite(colours, np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(InvalidInput, match="colour"):
        read_info(colours)
    mixed = tmp_path / "mixed.tif"
    with tifffile.TiffWriter(mixed) as tiff:
        tiff.write(np.zeros((8, 8), np.uint8), metadata=None)
        tiff.write(np.zeros((8, 9), np.uint8), metadata=None)
    with pytest.raises(InvalidInput, match="Frames must be alike"):
        read_info(mixed)
    doubles = write_tiff(tmp_path / "doubles.tif", np.zeros((2, 8, 8)))
    with pytest.raises(InvalidInput, match="float64"):
        read_info(doubles)


def test_eer_is_known_by_its_compression(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "renamed.tif", compression=None)
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<HHI", 259, 3, 1))
    struct.pack_into("<H", data, entry + 8, 65001)
    path.write_bytes(bytes(data))
    with pytest.raises(InvalidInput, match="EER"):
        read_info(path)


def test_places_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mrc")
    (tmp_path / "folder.mrc").mkdir()
    (tmp_path / "dangling.mrc").symlink_to("gone")
    (tmp_path / "loop.mrc").symlink_to("loop.mrc")
    (tmp_path / "zero.mrc").symlink_to("/dev/zero")
    for name, message in [
        ("pipe.mrc", "not a plain file"),
        ("folder.mrc", "is a folder"),
        ("dangling.mrc", "gone"),
        ("loop.mrc", "cannot be read"),
        ("zero.mrc", "not a plain file"),
        ("missing.mrc", "does not exist"),
        ("null\0.mrc", "not a possible file name"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            read_info(tmp_path / name)


def test_links_must_stay_inside(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    outside = write_mrc(tmp_path / "secret.mrc")
    (project / "link.mrc").symlink_to(outside)
    (project / "near.mrc").symlink_to(write_mrc(project / "real.mrc"))
    assert read_info(project / "near.mrc", inside=project).frames == 4
    with pytest.raises(InvalidInput, match="outside the project"):
        read_info(project / "link.mrc", inside=project)
    with pytest.raises(InvalidInput, match="outside the project"):
        read_info(project / ".." / "secret.mrc", inside=project)


def test_names_are_told_as_they_are(tmp_path: Path) -> None:
    for name in ("a 'quoted' \"movie\".mrc", "new\nline.mrc", os.fsdecode(b"caf\xe9.mrc")):
        assert read_info(write_mrc(tmp_path / name)).path.name == name


def test_claims_of_a_hostile_header_cost_nothing(tmp_path: Path) -> None:
    huge = bytearray(1024)
    struct.pack_into("<4i", huge, 0, 65_536, 65_536, 20_000, 2)
    path = tmp_path / "huge.mrc"
    path.write_bytes(bytes(huge))
    with pytest.raises(InvalidInput, match="incomplete"):
        read_info(path)
    # A TIFF whose directory points at itself, and one that claims 65,535 entries.
    loop = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + struct.pack("<HHII", 256, 3, 1, 8)
    for content in (loop + struct.pack("<I", 8), b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(3000)):
        path = tmp_path / "hostile.tif"
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match="damaged"):
            read_info(path)


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.integers(0, 2000), change=st.binary(min_size=1, max_size=8), kind=st.sampled_from(["tif", "mrc"])
)
def test_damaged_headers_are_refused_or_read_but_never_crash(
    tmp_path: Path, place: int, change: bytes, kind: str
) -> None:
    whole = tmp_path / f"whole.{kind}"
    if not whole.exists():
        (write_tiff if kind == "tif" else write_mrc)(whole, FRAMES[:, :10, :10])
    data = bytearray(whole.read_bytes())
    place %= len(data)
    data[place : place + len(change)] = change
    path = tmp_path / f"damaged.{kind}"
    path.write_bytes(bytes(data))
    try:
        info = read_info(path)
    except InvalidInput as refused:
        told = str(refused)
    else:
        told = f"{info.path.name} {info.size}"
        assert min(info.nx, info.ny, info.frames - 1) > 0
    assert path.name in told
