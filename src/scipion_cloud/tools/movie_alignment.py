"""My Movie Alignment: import movies, then Scipion's ProtRelionMotioncor with RELION's own implementation."""

import os
from collections.abc import Mapping
from typing import Any

from scipion_cloud.tools.form import Field, Value
from scipion_cloud.tools.inputs import LinkedInputs
from scipion_cloud.tools.movies.results import PROTOCOL
from scipion_cloud.tools.tool import Tool

_IMPORT, _ALIGN = "ProtImportMovies", PROTOCOL

_FIELDS = (
    Field(
        "pixel_size",
        _IMPORT,
        "samplingRate",
        "Pixel size",
        required=True,
        unit="Å",
        low=0.1,
        high=20,
        help="Of the movie as recorded: half the physical pixel in super-resolution mode.",
        explain="Typical values lie between 0.3 and 4 Å.",
    ),
    Field(
        "voltage",
        _IMPORT,
        "voltage",
        "Voltage",
        default=300.0,
        unit="kV",
        low=60,
        high=1250,
        help="Of the microscope.",
        explain="Microscopes have 100, 120, 200 or 300 kV; give kilovolts.",
    ),
    Field(
        "cs",
        _IMPORT,
        "sphericalAberration",
        "Spherical aberration",
        default=2.7,
        unit="mm",
        low=0,
        high=10,
        help="2.7 for Krios and Glacios, about 0.01 with a corrector.",
        explain="It lies between 0 and 10 mm.",
    ),
    Field(
        "amplitude_contrast",
        _IMPORT,
        "amplitudeContrast",
        "Amplitude contrast",
        default=0.1,
        low=0,
        high=1,
        help="0.07 to 0.1 for proteins in ice.",
        explain="It is a fraction between 0 and 1.",
    ),
    Field(
        "dose_per_frame",
        _IMPORT,
        "dosePerFrame",
        "Dose per frame",
        default=1.0,
        unit="e⁻/Å²",
        low=0.001,
        high=100,
        help="Total dose divided by the number of frames; dose weighting depends on it.",
        explain="Typical values lie between 0.2 and 3 e⁻/Å².",
    ),
    Field(
        "gain",
        _IMPORT,
        "gainFile",
        "Gain reference",
        kind="file",
        help="A file of this project's data; none if the movies are gain corrected.",
    ),
    Field(
        "patch_x",
        _ALIGN,
        "patchX",
        "Patches across",
        default=5,
        low=1,
        high=40,
        help="With 1 or 2, the movie is aligned as a whole.",
        explain="Between 1 and 40.",
    ),
    Field(
        "patch_y",
        _ALIGN,
        "patchY",
        "Patches down",
        default=5,
        low=1,
        high=40,
        help=" ",
        explain="Between 1 and 40.",
    ),
    Field(
        "dose_weighting",
        _ALIGN,
        "doDW",
        "Dose weighting",
        default=True,
        help="Weights each frame's resolution by the dose that the specimen had received.",
    ),
    Field(
        "dose_before",
        _IMPORT,
        "doseInitial",
        "Dose before the first frame",
        default=0.0,
        unit="e⁻/Å²",
        low=0,
        high=1000,
        help="Pre-exposure.",
        explain="Between 0 and 1000 e⁻/Å².",
        advanced=True,
    ),
    Field(
        "gain_rotation",
        _ALIGN,
        "gainRot",
        "Turn the gain reference",
        advanced=True,
        choices=(("0", "Not"), ("1", "90°"), ("2", "180°"), ("3", "270°")),
    ),
    Field(
        "gain_flip",
        _ALIGN,
        "gainFlip",
        "Flip the gain reference",
        advanced=True,
        choices=(("0", "Not"), ("1", "Upside down"), ("2", "Left to right")),
    ),
    Field(
        "save_unweighted",
        _ALIGN,
        "saveNonDW",
        "Also save micrographs without dose weighting",
        default=False,
        advanced=True,
    ),
    Field(
        "binning",
        _ALIGN,
        "binFactor",
        "Binning",
        default=1.0,
        low=1,
        high=8,
        advanced=True,
        help="2 brings super-resolution movies to the physical pixel.",
        explain="Between 1 and 8.",
    ),
    Field(
        "bfactor",
        _ALIGN,
        "bfactor",
        "B-factor of the alignment",
        default=150,
        unit="Å²",
        low=0,
        high=5000,
        advanced=True,
        help="Higher trusts only low resolution; for noisy movies.",
        explain="Between 0 and 5000 Å².",
    ),
    Field(
        "group_frames",
        _ALIGN,
        "groupFrames",
        "Frames to average before measuring",
        default=1,
        low=1,
        high=100,
        advanced=True,
        help="More than 1 when a frame has less than about 0.5 e⁻/Å².",
        explain="Between 1 and 100.",
    ),
    Field(
        "first_frame",
        _ALIGN,
        "sumFrame0",
        "First frame in the sum",
        default=1,
        low=1,
        high=100_000,
        advanced=True,
        help="Counted from 1.",
        explain="A frame's number, from 1.",
    ),
    Field(
        "last_frame",
        _ALIGN,
        "sumFrameN",
        "Last frame in the sum",
        default=0,
        low=0,
        high=100_000,
        advanced=True,
        help="0 takes all.",
        explain="A frame's number, or 0 for all.",
    ),
    Field(
        "threads",
        _ALIGN,
        "numberOfThreads",
        "Threads",
        low=1,
        high=256,
        default=min(16, os.cpu_count() or 1),
        advanced=True,
        help="CPUs that one movie uses.",
        explain="Between 1 and 256.",
    ),
    Field(
        "at_a_time",
        "",
        "",
        "Movies at a time",
        kind="int",
        low=0,
        high=1000,
        default=0,
        advanced=True,
        help="0 takes as many as there is room for, each with its threads; at another site it is always 1.",
        explain="Between 0 and 1000.",
    ),
)


def _check(values: Mapping[str, Value]) -> dict[str, str]:
    first, last = int(values["first_frame"] or 1), int(values["last_frame"] or 0)
    if last and last <= first:
        return {"last_frame": f"It must come after the first frame, {first}; or be 0 for all frames."}
    return {}


def _steps(values: Mapping[str, Value], inputs: LinkedInputs) -> list[dict[str, Any]]:
    """The chain: what is set by no field is Scipion's own default."""

    def params(protocol: str, **fixed: object) -> dict[str, object]:
        typed = {f.param: _plain(f, values[f.name]) for f in _FIELDS if f.protocol == protocol}
        return {**{name: value for name, value in typed.items() if value is not None}, **fixed}

    files = {"filesPath": inputs.folder, "filesPattern": inputs.pattern, "copyFiles": False}
    if inputs.gain:
        files["gainFile"] = inputs.gain
    return [
        {
            "name": "import",
            "class": _IMPORT,
            "label": "import movies",
            "params": params(_IMPORT, **files),
            "inputs": {},
        },
        {
            "name": "align",
            "class": _ALIGN,
            "label": "movie alignment",
            "params": params(_ALIGN, numberOfMpi=1),
            "inputs": {"inputMovies": "import.outputMovies"},
        },
    ]


def _plain(field: Field, value: Value) -> Value:
    """As the protocol takes it: choices as their number."""
    return int(value) if field.choices and isinstance(value, str) else value


TOOL = Tool(
    id="movie-alignment",
    title="My Movie Alignment",
    summary="Corrects the motion of each movie, as a whole and in patches, with RELION.",
    fields=_FIELDS,
    steps=_steps,
    check=_check,
    main="align",
    packages=("relion",),
)
