"""Example particles: what the STAR file says is what the images show."""

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
from click.testing import CliRunner
from scipy import fft

from scipion_cloud.cli import main
from scipion_cloud.errors import InvalidInput
from scipion_cloud.examples.particles import ParticleSpec, write_particles

ALIKE = 128  # particles later comes the same view again


def test_places_are_those_of_the_star_file(tmp_path: Path) -> None:
    star = write_particles(tmp_path, ALIKE + 4, ParticleSpec(pixel_size=8, snr=1e4, offset=20))
    tables = starfile.read(star)
    table, stack = tables["particles"], mrcfile.read(tmp_path / "particles.mrcs")
    assert stack.shape[0] == len(table) == ALIKE + 4
    assert tables["optics"]["rlnImageSize"][0] == stack.shape[1]
    origins = table[["rlnOriginYAngst", "rlnOriginXAngst"]].to_numpy()
    for n in range(4):
        first, second = (fft.rfft2(stack[m]) for m in (n, n + ALIKE))
        together = fft.fftshift(fft.irfft2(second * first.conj(), s=stack.shape[1:]))
        peak = np.array(np.unravel_index(together.argmax(), together.shape)) - stack.shape[1] // 2
        assert np.abs(peak * 8.0 + (origins[n + ALIKE] - origins[n])).max() < 8.0  # within a pixel
        angles = table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
        assert np.allclose(angles[n], angles[n + ALIKE])


def test_the_same_seed_gives_the_same_files_and_the_background_is_normalised(tmp_path: Path) -> None:
    spec = ParticleSpec(pixel_size=12)
    for name in ("a", "b"):
        write_particles(tmp_path / name, 3, spec, seed=5)
    for name in ("particles.mrcs", "particles.star"):
        first = (tmp_path / "a" / name).read_bytes()
        # an MRC header tells when it was written
        assert first[1024:] == (tmp_path / "b" / name).read_bytes()[1024:]
    stack = mrcfile.read(tmp_path / "a" / "particles.mrcs")
    corners = stack[:, :4, :4]
    assert abs(corners.mean()) < 0.5
    assert 0.5 < corners.std() < 2


def test_the_command_tells_programs_and_people(tmp_path: Path) -> None:
    options = ["--count=4", "--pixel-size=12", "--json"]
    done = CliRunner().invoke(main, ["example", "particles", str(tmp_path / "new"), *options])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert (answer["particles"], answer["pixel_size_A"]) == (4, 12)
    assert len(starfile.read(answer["star"])["particles"]) == 4
    assert mrcfile.read(answer["stack"]).shape[0] == 4
    done = CliRunner().invoke(main, ["example", "particles", str(tmp_path), "--count", "1"])
    assert (done.exit_code, "two example particles" in done.output) == (1, True)


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="snr of example particles is 0"):
        ParticleSpec(snr=0)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_particles(tmp_path / "file" / "folder", 2)
