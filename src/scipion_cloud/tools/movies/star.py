"""STAR files: reading RELION's own, and the one with all micrographs that a user downloads."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scipion_cloud.errors import InvalidInput


@dataclass(frozen=True)
class Block:
    """A block `data_...` of a STAR file: its labels without underscore, and its rows of words."""

    labels: tuple[str, ...]
    rows: list[list[str]]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {label: n for n, label in enumerate(self.labels)}

    def numbers(self, label: str) -> NDArray[np.float64]:
        """A column of numbers. Raises KeyError if it is not there, ValueError if it holds something else."""
        column = self._index[label]
        return np.array([float(row[column]) for row in self.rows])


def read_blocks(text: str) -> dict[str, Block]:
    """The blocks of a STAR file as RELION writes it, by name.

    RELION leaves names of files with spaces unquoted, which STAR libraries refuse. Such a name is kept whole
    where it is the value of a list; a row of a loop with too few or too many words is left out.
    """
    blocks: dict[str, Block] = {}
    name, labels, rows, loop = "", list[str](), list[list[str]](), False

    def close() -> None:
        if labels:
            blocks[name] = Block(tuple(labels), rows if loop else [values])

    values: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if line.startswith("data_"):
            close()
            name, labels, rows, values, loop = line[5:], [], [], [], False
        elif line == "loop_":
            loop = True
        elif line.startswith("_"):
            label, _, value = line[1:].partition(" ")
            labels.append(label)
            values.append(value.strip())
        elif loop and len(words := line.split()) == len(labels):
            rows.append(words)
    close()
    return blocks


@dataclass(frozen=True)
class Optics:
    """What the micrographs have in common: A, A, kV, mm, and a fraction."""

    pixel_size: float
    original_pixel_size: float
    voltage: float
    cs: float
    amplitude_contrast: float


@dataclass(frozen=True)
class MicrographRow:
    """A micrograph for download: paths as they shall stand in the file, motion in A or None for no data."""

    micrograph: str
    metadata: str
    total: float | None
    early: float | None
    late: float | None


_NO_DATA = -9999.0  # RELION's own mark for what was not observed


def movies_star(rows: Iterable[MicrographRow], optics: Optics) -> str:
    """A `corrected_micrographs.star` as RELION 3.1 and later read it.

    Motion that is not known stands as -9999, RELION's mark. Names with spaces are quoted, which RELION reads
    from version 4 on. Raises InvalidInput for a name that STAR cannot hold.
    """
    described: dict[str, str | float] = {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": 1,
        "rlnMicrographOriginalPixelSize": optics.original_pixel_size,
        "rlnVoltage": optics.voltage,
        "rlnSphericalAberration": optics.cs,
        "rlnAmplitudeContrast": optics.amplitude_contrast,
        "rlnMicrographPixelSize": optics.pixel_size,
    }
    motions = ("rlnAccumMotionTotal", "rlnAccumMotionEarly", "rlnAccumMotionLate")
    return _loop("optics", described.keys(), [described.values()]) + _loop(
        "micrographs",
        ("rlnMicrographName", "rlnMicrographMetadata", "rlnOpticsGroup", *motions),
        ((row.micrograph, row.metadata, 1, row.total, row.early, row.late) for row in rows),
    )


def _loop(name: str, labels: Iterable[str], rows: Iterable[Iterable[str | float | None]]) -> str:
    lines = ["", "# version 30001", "", f"data_{name}", "", "loop_"]
    lines += [f"_{label} #{n}" for n, label in enumerate(labels, 1)]
    lines += [" ".join(map(_word, row)) for row in rows]
    return "\n".join([*lines, "", ""])


def _word(value: str | float | None) -> str:
    if value is None:
        value = _NO_DATA
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6f}"
    if not value or not value.isprintable() or '"' in value:
        raise InvalidInput(f"The name {value!r} cannot be written into a STAR file. Rename the movie.")
    return f'"{value}"' if " " in value else value
