"""Runs: which movies they take, what is refused before anything starts, what they give back."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.model import MovieState, RunState
from scipion_cloud.portal.services.runs import stems
from scipion_cloud.records.models import Movie, Project, Run

VALUES = {"pixel_size": 1.5, "voltage": 300, "cs": 2.7, "amplitude_contrast": 0.1, "dose_per_frame": 1.25}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_movies(folder, 3, MovieSpec(size=96, frames=3, pixel_size=1.5))
    return folder


@pytest.fixture
def data(project: Project, examples: Path) -> Path:
    """Three movies and a gain reference in the folder 'day 1' of the project's data."""
    shutil.copytree(examples, project.data / "day 1")
    return project.data


@pytest.fixture
def start(owner: Any, project: Project) -> Callable[..., Any]:
    """Start a run; the answer, which must have the status given."""

    def start(status: int = 201, movies: str = "", **values: object) -> Any:
        body = {
            "tool": "movie-alignment",
            "parameters": {**VALUES, **values},
            "movies": movies,
            "label": " a  b ",
        }
        return owner.json("POST", f"/projects/{project.id}/runs", body, status)

    return start


def test_a_run_takes_all_movies_in_order(start: Any, data: Path, project: Project) -> None:
    answer = start(gain="day 1/gain.mrc")
    assert (answer["state"], answer["label"]) == ("waiting", "a b")
    assert answer["movies"] == {"total": 3, "done": 0, "failed": 0}
    run = Run.objects.get(pk=answer["id"])
    assert run.parameters["pixel_size"] == 1.5
    names = sorted(f"day 1/{file.name}" for file in (data / "day 1").glob("*.tif*"))
    assert list(run.movies.values_list("index", "name")) == list(enumerate(names, 1))


def test_movies_are_chosen_by_folder_or_pattern(start: Any, data: Path, examples: Path) -> None:
    shutil.copytree(examples, data / "day 2")
    assert start(movies="day 2")["movies"]["total"] == 3
    assert start(movies="day 2/")["movies"]["total"] == 3
    assert start(movies="*/*001.tif*")["movies"]["total"] == 2
    assert "called like 'day 3'" in start(422, movies="day 3")["errors"]["movies"]


def test_a_project_without_movies(start: Any) -> None:
    assert "upload some first" in start(422)["errors"]["movies"]


def truncate(folder: Path) -> None:
    file = next(iter(sorted(folder.glob("*.tif*"))))
    file.write_bytes(file.read_bytes()[:-500])


def write_text(folder: Path) -> None:
    (folder / "notes.mrc").write_text("These are my notes.")


def write_other_size(folder: Path) -> None:
    with mrcfile.new(folder / "other.mrcs") as mrc:
        mrc.set_data(np.zeros((3, 64, 64), np.int16))


def write_single_frame(folder: Path) -> None:
    with mrcfile.new(folder / "image.mrc") as mrc:
        mrc.set_data(np.zeros((96, 96), np.int16))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "incomplete"),
        (write_text, "notes.mrc is a text"),
        (write_other_size, "other.mrcs has 64 x 64 pixels"),
        (write_single_frame, "image.mrc is an image"),
    ],
)
def test_bad_movies_are_refused_with_what_to_do(start: Any, data: Path, spoil: Any, message: str) -> None:
    spoil(data / "day 1")
    text = start(422)["errors"]["movies"]
    assert message in text
    assert "cannot be used" in text
    assert not Run.objects.exists()


def test_a_gain_reference_that_does_not_fit(start: Any, data: Path) -> None:
    with mrcfile.new(data / "gain small.mrc") as mrc:
        mrc.set_data(np.ones((48, 96), np.float32))
    assert "96 x 48 pixels" in start(422, gain="gain small.mrc")["errors"]["gain"]


def test_a_gain_reference_that_must_be_turned(start: Any, data: Path) -> None:
    write_movies(data / "oblong", 1, MovieSpec(size=96, frames=3, gain=False, format="mrcs"))
    (movie,) = (data / "oblong").glob("*.mrcs")
    with mrcfile.new(movie, overwrite=True) as mrc:
        mrc.set_data(np.zeros((3, 48, 96), np.int16))
    with mrcfile.new(data / "oblong" / "gain.mrc") as mrc:
        mrc.set_data(np.ones((96, 48), np.float32))
    values = {"movies": "oblong", "gain": "oblong/gain.mrc"}
    assert "fits when turned" in start(422, **values)["errors"]["gain"]
    assert start(**values, gain_rotation=1)["state"] == "waiting"
    with mrcfile.new(data / "oblong" / "gain.mrc", overwrite=True) as mrc:
        mrc.set_data(np.ones((48, 96), np.float32))
    assert "fits as it is" in start(422, **values, gain_rotation=1)["errors"]["gain"]


def test_frames_that_are_not_there(start: Any, data: Path) -> None:
    assert "3 frames" in start(422, last_frame=4)["errors"]["last_frame"]
    assert start(last_frame=3)["state"] == "waiting"


@pytest.mark.parametrize("gain", ["../../../secret.mrc", "/etc/passwd", "day 1/none.mrc", "day 1", "a\0b"])
def test_a_gain_reference_outside_or_missing(start: Any, data: Path, home: Path, gain: str) -> None:
    shutil.copy(data / "day 1" / "gain.mrc", home / "secret.mrc")
    assert set(start(422, gain=gain)["errors"]) == {"gain"}
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("pixel_size", 0), ("pixel_size", "one"), ("voltage", -300), ("dose_per_frame", 1e9), ("magic", 1)],
)
def test_bad_values_are_refused_by_field(start: Any, data: Path, name: str, value: object) -> None:
    assert set(start(422, **{name: value})["errors"]) == {name}


def test_values_may_come_as_text(start: Any, data: Path) -> None:
    run = Run.objects.get(pk=start(pixel_size="1.5", voltage="200")["id"])
    assert (run.parameters["pixel_size"], run.parameters["voltage"]) == (1.5, 200.0)


def test_an_unknown_tool(owner: Any, project: Project, data: Path) -> None:
    owner.json("POST", f"/projects/{project.id}/runs", {"tool": "magic"}, 404)


def test_names_that_programs_lose_are_refused(start: Any, data: Path) -> None:
    file = next((data / "day 1").glob("*.tif*"))
    file.rename(file.with_name("a\nb.tiff"))
    assert "Rename" in start(422)["errors"]["movies"]


def test_safe_names_are_never_the_same() -> None:
    names = ["a.tiff", "b/a.mrc", "ä b'$(x).tif", "a.b.tif", "a_b.tif", "a_2.tif", "a.mrcs", "-.tif"]
    names.append("x" * 300 + ".tif")
    safe = stems(names)
    assert len(set(safe)) == len(names)
    assert safe[:2] == ["a", "a_2"]
    assert all(s.replace("_", "").replace("-", "").isalnum() and s.isascii() and len(s) < 130 for s in safe)


def test_tools_are_described(owner: Any) -> None:
    (tool,) = owner.json("GET", "/tools")
    assert (tool["id"], owner.json("GET", "/tools/movie-alignment")) == ("movie-alignment", tool)
    owner.json("GET", "/tools/magic", status=404)


def test_a_run_is_cancelled_once(owner: Any, run: Run) -> None:
    path = f"/projects/{run.project_id}/runs/{run.id}"
    assert owner.json("POST", f"{path}/cancel")["state"] == "cancelling"
    Run.objects.update(state=RunState.CANCELLED.value)
    assert owner.json("POST", f"{path}/cancel", status=409)["detail"] == "This run is cancelled already."


@pytest.fixture
def outputs(run: Run) -> Path:
    """What RELION and Scipion leave for the first movie."""
    extra = run.project.path / "Runs" / "000002_Motioncor" / "extra"
    (extra.parent / "logs").mkdir(parents=True)
    extra.mkdir()
    (extra / "acorrected_micrographs.star").write_text("data_\n")
    (extra / "a.star").write_text("data_general\n")
    with mrcfile.new(extra / "a_aligned_mic.mrc") as mrc:
        mrc.set_data(np.arange(96 * 96, dtype=np.float32).reshape(96, 96))
    (extra.parent / "logs" / "run.stdout").write_text("old\n" * 100_000 + "aligned a\n")
    run.steps = {"import": {"run_dir": ""}, "align": {"run_dir": "Runs/000002_Motioncor"}}
    run.save()
    return extra


def test_outputs_are_listed_and_fetched(owner: Any, run: Run, outputs: Path) -> None:
    path = f"/projects/{run.project_id}/runs/{run.id}"
    micrograph, star = owner.json("GET", f"{path}/outputs")
    content = (outputs / "a_aligned_mic.mrc").read_bytes()
    assert (micrograph["name"], micrograph["size"]) == ("a_aligned.mrc", len(content))
    assert (star["name"], star["size"]) == ("corrected_micrographs.star", None)
    answer = owner("GET", micrograph["url"].removeprefix("/api/v1"))
    assert b"".join(answer) == content
    assert 'filename="a_aligned.mrc"' in answer["Content-Disposition"]
    part = owner("GET", micrograph["url"].removeprefix("/api/v1"), Range="bytes=1000-")
    assert (part.status_code, b"".join(part)) == (206, content[1000:])
    text = owner("GET", star["url"].removeprefix("/api/v1")).content.decode()
    assert "Runs/000002_Motioncor/extra/a_aligned_mic.mrc" in text
    assert "20.000000 12.000000 8.000000" in text


def test_rejected_micrographs_are_left_out_of_the_star_file(owner: Any, run: Run, outputs: Path) -> None:
    Movie.objects.update(accepted=False)
    path = f"/projects/{run.project_id}/runs/{run.id}"
    assert [o["name"] for o in owner.json("GET", f"{path}/outputs")] == ["a_aligned.mrc"]
    owner.json("GET", f"{path}/star", status=404)


def test_a_micrograph_behind_a_link_that_leaves_is_missing(
    owner: Any, run: Run, outputs: Path, home: Path
) -> None:
    (outputs / "a_aligned_mic.mrc").rename(home / "secret.mrc")
    (outputs / "a_aligned_mic.mrc").symlink_to(home / "secret.mrc")
    owner.json("GET", f"/projects/{run.project_id}/runs/{run.id}/movies/1/micrograph", status=404)
    owner.json("GET", f"/projects/{run.project_id}/runs/{run.id}/movies/2/micrograph", status=404)


def test_the_log_is_the_end_of_what_the_steps_wrote(owner: Any, run: Run, outputs: Path) -> None:
    log = owner.json("GET", f"/projects/{run.project_id}/runs/{run.id}/log")["log"]
    assert log.startswith("[...]\nold\n")
    assert log.endswith("aligned a")
    assert len(log) < 140_000


def test_results_movie_by_movie(owner: Any, run: Run) -> None:
    first, second = owner.json("GET", f"/projects/{run.project_id}/runs/{run.id}/movies")
    assert (first["name"], first["total"], first["drift"]) == ("day 1/a.tiff", 20.0, [[0, 0], [1.5, -2]])
    assert (second["state"], second["total"]) == (MovieState.WAITING, None)
