"""`scipion-cloud site`, on a site next door."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scipion_cloud.cli import main
from scipion_cloud.sites.reading import parse_sites


@pytest.fixture
def area(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("SCIPION_CLOUD_HOME", str(home))
    (home / "sites.toml").write_text(
        f'[near]\ntitle = "Next door"\narea = "{tmp_path}/area"\nsoftware = ["relion"]\nmax_cpus = 1\n'
    )
    return tmp_path / "area"


def run(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["site", *words])
    assert result.exit_code == code, result.output
    return result


def test_list_and_show(area: Path) -> None:
    assert "Next door" in run("list").output
    here, near = json.loads(run("list", "--json").output)
    assert (here["name"], near["name"], near["state"]) == ("here", "near", "unknown")
    assert "never" in run("show", "near").output
    assert json.loads(run("show", "near", "--json").output) == near
    assert "there are: here, near" in run("show", "far", code=1).output


def test_drain_and_resume(area: Path) -> None:
    assert "takes no new jobs" in run("drain", "near", "--reason", "new disks").output
    found = json.loads(run("show", "near", "--json").output)
    assert (found["state"], found["drained"]) == ("drained", "new disks")
    assert found["drained_since"]
    run("resume", "near")
    assert json.loads(run("show", "near", "--json").output)["drained"] == ""


def test_the_example_is_what_can_be_read(tmp_path: Path) -> None:
    text = run("example").output
    assert [site.name for site in parse_sites(text, tmp_path / "sites.toml", tmp_path)] == ["here", "hpc"]


def test_the_test_stops_at_what_is_missing(area: Path) -> None:
    """The site has no Scipion; all before that is real: a queue, rsync, a job."""
    answer = json.loads(run("test", "near", "--json", code=1).output)
    assert (answer["site"], answer["ok"]) == ("near", False)
    steps = {step["name"]: step for step in answer["steps"]}
    assert list(steps) == ["Batch system", "Nodes", "Working area", "Files", "Job", "Scipion"]
    assert [name for name, step in steps.items() if not step["ok"]] == ["Scipion"]
    assert "No `scipion` is named in sites.toml" in steps["Scipion"]["text"]
    shown = run("show", "near").output
    assert "fails" in shown
    assert "MB/s" in shown


def test_install_writes_the_program_to_be_carried(area: Path, tmp_path: Path) -> None:
    said = run("install", "near", "--to", str(tmp_path / "it.pyz")).output
    assert str(area / "scipion-cloud-site.pyz") in said
    assert (tmp_path / "it.pyz").read_bytes().startswith(b"#!/usr/bin/env python3")
    assert "nothing has to be installed" in run("install", "near", code=1).output
