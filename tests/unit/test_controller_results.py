"""Numbers and pictures of movies as they come; the painter is a real process where nothing else is said."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scipion_cloud.config import Config
from scipion_cloud.controller import results
from scipion_cloud.controller.painter import Painter, Picture
from scipion_cloud.controller.results import Numbers, Results, mend_pictures
from scipion_cloud.records.models import Movie, Project, Run, User


def picture(number: int = 1, **values: object) -> Picture:
    nothing = {"run_dir": "/nowhere", "source": "/nowhere/a.tif", "gain": "", "folder": "/nowhere/a"}
    rest = {"pixel_size": 1.0, "binning": 1.0, "gain_rotation": 0, "gain_flip": 0, "details": False}
    return Picture(**{"movie": number, "stem": "a", **nothing, **rest, **values})  # type: ignore[arg-type]


def collect(painter: Painter, number: int = 1) -> list[tuple[Picture, str | None, bool]]:
    answers: list[tuple[Picture, str | None, bool]] = []
    for _ in range(20_000):
        answers += painter.collect()
        if len(answers) >= number:
            return answers
        time.sleep(0.01)
    raise AssertionError("the painter did not answer")


@pytest.fixture
def painter() -> Iterator[Painter]:
    painter = Painter()
    yield painter
    painter.close()


def test_the_painter_tells_what_it_could_not_paint_and_goes_on(painter: Painter) -> None:
    painter.ask(picture(1))
    painter.ask(picture(2))
    answers = collect(painter, 2)
    assert [a[0].movie for a in answers] == [1, 2]
    assert all("micrograph has gone" in (error or "") and not died for _, error, died in answers)
    assert painter.asked == []


def test_a_painter_that_dies_names_the_movie_and_is_started_again(painter: Painter) -> None:
    painter.ask(picture(1))
    collect(painter)
    assert painter._process is not None
    painter._process.kill()
    painter._process.wait()
    painter.ask(picture(2))
    painter.ask(picture(3))
    ((suspect, error, died),) = collect(painter)
    assert (suspect.movie, died) == (2, True)
    assert "exit code -9" in (error or "")
    painter.ask(picture(3))
    assert collect(painter)[0][0].movie == 3


def test_the_painter_ends_when_it_is_closed(painter: Painter) -> None:
    painter.ask(picture())
    assert painter._process is not None
    process = painter._process
    painter.close()
    assert process.returncode is not None


@pytest.fixture
def run(db: None, config: Config) -> Run:
    user = User.objects.create_user(username="u", email="u@example.org")
    project = Project.objects.create(name="P", owner=user, folder="p-12345678")
    run = Run.objects.create(project=project, tool="movie-alignment", parameters={}, user=user)
    for index, stem in enumerate(["a", "b", "c"], 1):
        run.movies.create(index=index, name=f"{stem}.tif", stem=stem)
    return run


def test_numbers_are_stored_once_and_failed_movies_stay_failed(run: Run) -> None:
    run.movies.filter(stem="b").update(state="failed", message="text")
    keeper = Results()
    keeper.store(run, [Numbers("a", 5.0, 2.0, 3.0, [[0, 0], [3, 4]], [[0.5, 0.5, 1, 1]]), Numbers("b", 1.0)])
    keeper.store(run, [Numbers("a", 9.0)])
    a, b, c = run.movies.all()
    assert (a.state, a.total, a.drift, a.local) == ("done", 5.0, [[0, 0], [3, 4]], [[0.5, 0.5, 1, 1]])
    assert (b.state, b.total, b.message) == ("failed", None, "text")
    assert c.state == "waiting"


class Scripted:
    """A painter whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[Picture] = []
        self.answers: list[tuple[Picture, str | None, bool]] = []

    def ask(self, picture: Picture) -> None:
        self.asked.append(picture)

    def answer(self, error: str | None = None, *, died: bool = False) -> None:
        self.answers.append((self.asked.pop(0), error, died))

    def collect(self) -> list[tuple[Picture, str | None, bool]]:
        answers, self.answers = self.answers, []
        return answers


@pytest.fixture
def scripted(run: Run, monkeypatch: pytest.MonkeyPatch) -> tuple[Results, Scripted]:
    monkeypatch.setattr(results, "REST", 0.0)
    monkeypatch.setattr(results, "picture_of", lambda movie: picture(movie.pk, stem=movie.stem))
    keeper, painter = Results(), Scripted()
    keeper._painter = painter  # type: ignore[assignment]
    keeper.store(run, [Numbers(stem, 1.0) for stem in "abc"])
    keeper.reconcile()
    return keeper, painter


def test_pictures_are_asked_for_two_at_a_time_and_noted_when_they_are_there(
    run: Run, scripted: tuple[Results, Scripted]
) -> None:
    keeper, painter = scripted
    assert [p.stem for p in painter.asked] == ["a", "b"]
    painter.answer()
    keeper.reconcile()
    assert [p.stem for p in painter.asked] == ["b", "c"]
    assert list(run.movies.values_list("thumbnail", flat=True)) == [True, False, False]


def test_details_wait_until_nothing_runs_unless_somebody_looks(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "REST", 0.0)
    monkeypatch.setattr(
        results, "picture_of", lambda m: picture(m.pk, stem=m.stem, details=m.thumbnail or m.wanted)
    )
    run.movies.update(state="done", thumbnail=True)
    Run.objects.update(state="running")
    keeper, painter = Results(), Scripted()
    keeper._mended = True
    keeper._painter = painter  # type: ignore[assignment]
    keeper.reconcile()
    assert painter.asked == []
    run.movies.filter(stem="b").update(wanted=True)
    keeper.reconcile()
    assert [(p.stem, p.details) for p in painter.asked] == [("b", True)]
    painter.answer()
    keeper.reconcile()
    assert run.movies.get(stem="b").details
    assert painter.asked == []
    Run.objects.update(state="finished")
    keeper.reconcile()
    assert [p.stem for p in painter.asked] == ["a", "c"]


def test_a_movie_without_pictures_keeps_its_numbers_and_is_not_asked_for_again(
    run: Run, scripted: tuple[Results, Scripted]
) -> None:
    keeper, painter = scripted
    painter.answer("InvalidInput: a.tif is gone.")
    for _ in range(3):
        keeper.reconcile()
    assert [p.stem for p in painter.asked] == ["b", "c"]
    movie = run.movies.get(stem="a")
    assert (movie.state, movie.total, movie.thumbnail) == ("done", 1.0, False)
    assert "a.tif is gone" in movie.message


def test_a_movie_on_which_the_painter_dies_is_tried_once_more(
    run: Run, scripted: tuple[Results, Scripted]
) -> None:
    keeper, painter = scripted
    painter.answer("died", died=True)
    painter.asked.clear()
    keeper.reconcile()
    assert [p.stem for p in painter.asked] == ["a", "b"]
    painter.answer("died", died=True)
    painter.asked.clear()
    keeper.reconcile()
    assert [p.stem for p in painter.asked] == ["b", "c"]


def test_what_is_missing_after_a_restart_is_made_again(run: Run) -> None:
    run.movies.update(state="done", thumbnail=True)
    run.movies.filter(stem="c").update(thumbnail=False, message="Its pictures could not be made: disk full")
    for stem in "ab":
        (run.pictures / stem).mkdir(parents=True)
    shutil.rmtree(run.pictures / "b")
    mend_pictures()
    assert list(run.movies.values_list("stem", "thumbnail", "message")) == [
        ("a", True, ""),
        ("b", False, ""),
        ("c", False, ""),
    ]


def test_movies_of_deleted_projects_are_not_painted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.utils import timezone

    run.movies.update(state="done")
    Project.objects.update(deleted=timezone.now())
    keeper, painter = Results(), Scripted()
    keeper._painter = painter  # type: ignore[assignment]
    keeper.reconcile()
    assert painter.asked == []
    assert Movie.objects.count() == 3
    assert not Path(run.pictures).exists()
