"""The form of My Movie Alignment: defaults, limits, words for wrong values, and the chain that it becomes."""

import json
from pathlib import Path
from typing import Any

import pytest

from scipion_cloud.config import Config
from scipion_cloud.errors import InvalidInput, NotFound, SetupError
from scipion_cloud.tools import catalogue
from scipion_cloud.tools.inputs import LinkedInputs, link_inputs
from scipion_cloud.tools.tool import Tool, build_request

INPUTS = LinkedInputs("Inputs/k/movies", "*", "Inputs/k/gain.mrc")


@pytest.fixture
def tool(software: Path) -> Tool:
    return catalogue.tool("movie-alignment")


def steps(tool: Tool, inputs: LinkedInputs = INPUTS, **values: object) -> dict[str, dict[str, Any]]:
    """The steps of a request for these values, by name."""
    request = build_request(tool, "k", Path("/p"), tool.validate({"pixel_size": "1.5", **values}), inputs)
    json.dumps(request)
    return {step["name"]: step for step in request["steps"]}


def test_what_a_microscopist_expects_is_there_already(tool: Tool) -> None:
    values = tool.validate({"pixel_size": 0.885})
    assert values | {"threads": 1} == {
        "pixel_size": 0.885,
        "voltage": 300,
        "cs": 2.7,
        "amplitude_contrast": 0.1,
        "dose_per_frame": 1.0,
        "dose_before": 0.0,
        "gain": None,
        "gain_rotation": "0",
        "gain_flip": "0",
        "patch_x": 5,
        "patch_y": 5,
        "dose_weighting": True,
        "save_unweighted": False,
        "binning": 1.0,
        "bfactor": 150,
        "group_frames": 1,
        "first_frame": 1,
        "last_frame": 0,
        "threads": 1,
        "at_a_time": 0,
    }


def test_every_parameter_is_one_of_the_protocols_form(tool: Tool, software: Path) -> None:
    forms = json.loads((software / "scipion" / "forms.json").read_text())
    known = {name: {p["name"] for p in form["params"]} for name, form in forms.items()}
    for step in steps(tool, gain="gain.mrc").values():
        assert step["params"].keys() <= known[step["class"]]
        assert step["inputs"].keys() <= known[step["class"]]


def test_the_chain_imports_the_links_and_aligns_what_it_imported(tool: Tool) -> None:
    made = steps(tool, gain="gain.mrc", gain_flip="2", patch_x="7", dose_weighting="false")
    assert made["import"]["params"]["filesPath"] == "Inputs/k/movies"
    assert made["import"]["params"]["gainFile"] == "Inputs/k/gain.mrc"
    assert made["import"]["params"]["samplingRate"] == 1.5
    align = made["align"]["params"]
    assert (align["gainFlip"], align["patchX"], align["patchY"], align["doDW"]) == (2, 7, 5, False)
    assert made["align"]["inputs"] == {"inputMovies": "import.outputMovies"}
    assert "gainFile" not in steps(tool, LinkedInputs("f", "*"))["import"]["params"]


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("pixel_size", "", "needed"),
        ("pixel_size", "0", "Å"),
        ("pixel_size", "-1", "Å"),
        ("pixel_size", "nan", "Å"),
        ("pixel_size", "inf", "Å"),
        ("pixel_size", "one", "not a number"),
        ("voltage", "300000", "kilovolts"),
        ("cs", "2700", "mm"),
        ("amplitude_contrast", "10", "fraction"),
        ("dose_per_frame", "0", "e⁻/Å²"),
        ("patch_x", "2.5", "whole number"),
        ("patch_x", "0", "Between 1 and 40"),
        ("gain_rotation", "5", "Choose one of"),
        ("dose_weighting", "perhaps", "yes or no"),
        ("last_frame", "1", "after the first frame"),
        ("extraParams", "; rm -rf /", "no parameter"),
        ("extra", "--j 2", "no parameter"),
    ],
)
def test_a_wrong_value_is_explained_where_it_stands(tool: Tool, name: str, value: str, word: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        tool.validate({"pixel_size": "1", name: value})
    assert caught.value.errors.keys() == {name}
    assert word in caught.value.errors[name]


def test_all_wrong_values_are_told_at_once(tool: Tool) -> None:
    with pytest.raises(InvalidInput) as caught:
        tool.validate({"voltage": "high", "cs": "x"})
    assert caught.value.errors.keys() == {"pixel_size", "voltage", "cs"}


def test_a_decimal_comma_is_understood(tool: Tool) -> None:
    assert tool.validate({"pixel_size": " 1,07 "})["pixel_size"] == 1.07


def test_a_tool_that_is_not_there(tool: Tool) -> None:
    with pytest.raises(NotFound, match="movie-alignment"):
        catalogue.tool("my-first-map")


def test_without_scipion_there_are_no_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalogue, "get_config", lambda: Config(software=tmp_path))
    with pytest.raises(SetupError, match="scipion-cloud up"):
        catalogue.tools()


def test_links_have_the_given_names_and_stay_inside(tmp_path: Path) -> None:
    project = tmp_path / "p"
    odd = {"a": "it's one.TIF", "b": "two\nlines.mrc", "c": "-day 1/100%.tiff"}
    for name in odd.values():
        (project / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "data" / name).write_text(name)
    for _ in range(2):  # doing it again gives the same
        linked = link_inputs(project, "k", odd, "it's one.TIF")
        found = {p.name: p.read_text() for p in (project / linked.folder).iterdir()}
        assert found == {"a.tif": odd["a"], "b.mrc": odd["b"], "c.tiff": odd["c"]}
        assert (project / linked.gain).read_text() == odd["a"]
    moved = project.rename(tmp_path / "q")
    links = [p for p in moved.rglob("*") if p.is_symlink()]
    assert len(links) == 4
    assert all(p.exists() and not p.readlink().is_absolute() for p in links)
