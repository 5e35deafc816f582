"""The bridge to the real Scipion: answers, errors, and an end to every call; and its installation."""

import json
import threading
from pathlib import Path

import pytest
from scipion_site import make_project

from scipion_cloud.config import Config
from scipion_cloud.errors import BridgeError, ConfigError, SetupError
from scipion_cloud.provision.scipion import check_scipion, scipion_is_current
from scipion_cloud.tools.bridge import call
from scipion_cloud.tools.environment import scipion_environ

pytestmark = [pytest.mark.scipion, pytest.mark.timeout(120), pytest.mark.usefixtures("software")]


def test_a_project_is_made_beside_what_is_there(config: Config) -> None:
    project = config.projects / "p-1"
    (project / "data").mkdir(parents=True)
    (project / "data" / "movie.tif").write_text("x")
    call("create_project", project, config=config, comment="mine")
    assert (project / "data" / "movie.tif").read_text() == "x"
    assert {"project.sqlite", "settings.sqlite", "Runs", "Logs", "Tmp"} <= {p.name for p in project.iterdir()}


def test_a_project_is_never_made_twice(config: Config) -> None:
    project = make_project(config, movies=0)
    before = (project / "project.sqlite").read_bytes()
    with pytest.raises(BridgeError, match="already"):
        call("create_project", project, config=config)
    assert (project / "project.sqlite").read_bytes() == before


def test_runs_without_a_database_are_not_wiped(config: Config) -> None:
    run = config.projects / "p-2" / "Runs" / "000002_ProtX"
    run.mkdir(parents=True)
    with pytest.raises(BridgeError, match=r"holds runs but no project\.sqlite"):
        call("create_project", config.projects / "p-2", config=config)
    assert run.is_dir()


def test_an_interrupted_creation_is_repeated(config: Config) -> None:
    project = config.projects / "p-3"
    (project / ".new-project" / "Runs").mkdir(parents=True)
    (project / "Runs").mkdir()
    call("create_project", project, config=config)
    assert (project / "project.sqlite").exists()
    assert not (project / ".new-project").exists()


def test_one_of_two_makers_wins(config: Config) -> None:
    outcomes: list[str] = []

    def make() -> None:
        try:
            call("create_project", config.projects / "p-4", config=config)
            outcomes.append("made")
        except BridgeError as e:
            outcomes.append(str(e))

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(o == "made" for o in outcomes) == [False, True]


def test_a_form_is_read_from_the_protocol(config: Config) -> None:
    form = call("describe_protocol", config=config, name="ProtRelionMotioncor")
    params = {p["name"]: p for p in form["params"]}
    assert params["bfactor"]["type"] == "int"
    assert params["bfactor"]["default"] == 150
    assert params["doDW"]["default"] is True
    assert params["gainRot"]["choices"][1] == "90 degrees (1)"
    assert params["extraParams"]["expert"]
    assert params["saveNonDW"]["condition"] == "doDW"
    assert params["inputMovies"]["type"] == "pointer"
    kept = json.loads((config.scipion_home / "forms.json").read_text())
    assert kept["ProtRelionMotioncor"] == form


def test_scipions_own_words_come_through(config: Config) -> None:
    with pytest.raises(BridgeError, match="Scipion knows no protocol ProtNone"):
        call("describe_protocol", config=config, name="ProtNone")
    with pytest.raises(BridgeError, match="holds no Scipion project"):
        call("settle", config.home, config=config, protocols=[])


def test_a_call_ends_in_time(config: Config) -> None:
    with pytest.raises(BridgeError, match="did not answer"):
        call("versions", config=config, timeout=0.05)


def test_without_scipion_it_says_so(config: Config, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="scipion-cloud up"):
        call("versions", config=config.model_copy(update={"software": tmp_path}))


def test_secrets_and_pythons_of_the_portal_stay_out(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "DJANGO_SETTINGS_MODULE",
        "VIRTUAL_ENV",
        "PYTHONPATH",
        "SCIPION_CLOUD_DATABASE",
        "AWS_SECRET",
    ):
        monkeypatch.setenv(name, "secret")
    environ = scipion_environ(config, config.projects)
    assert "secret" not in environ.values()
    assert environ["PATH"].split(":")[0] == str(config.scipion_python.parent)
    assert (Path(environ["PATH"].split(":")[1]) / "scipion-cloud").exists()
    assert environ["SCIPION_USER_DATA"] == str(config.home)
    with pytest.raises(ConfigError):
        scipion_environ(config, config.home / "elsewhere")


def test_the_installation_is_current(software: Path) -> None:
    assert scipion_is_current(software)
    check = check_scipion(software)
    assert check.ready, check.problems
    assert check.versions["Scipion"] == "3.8.3"
    assert "3.1" in check.versions["RELION"]


def test_a_missing_installation_is_described(tmp_path: Path) -> None:
    check = check_scipion(tmp_path / "nothing")
    assert not check.ready
    assert all("scipion-cloud up" in problem for problem in check.problems)
    assert not scipion_is_current(tmp_path / "nothing")
