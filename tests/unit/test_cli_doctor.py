"""`scipion-cloud doctor` on this machine, and on machines that lack things."""

import json
import os
import socket
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from scipion_cloud.cli import main
from scipion_cloud.config import Config
from scipion_cloud.provision import home as homes
from scipion_cloud.provision.checks import Check, Verdict, installation, machine, programs


def verdicts(checks: list[Check]) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in checks}


def test_whatever_is_not_well_has_a_remedy_and_decides_the_exit_code(home: Path) -> None:
    done = CliRunner().invoke(main, ["doctor", "--json"])
    checks = json.loads(done.stdout)
    assert {"Python", "uv", "npm", "RELION", "TigerVNC", "Scipion", "Database", "Disk of the home"} <= {
        check["name"] for check in checks
    }
    assert all(check["remedy"] for check in checks if check["verdict"] != "ok")
    assert all(check["detail"] for check in checks)
    database = next(check for check in checks if check["name"] == "Database")
    assert database["verdict"] == "missing"  # a fresh home has none
    assert done.exit_code == 1
    assert sorted(home.iterdir()) == []  # nothing was made by looking


def test_the_page_for_people_shows_verdict_and_remedy(home: Path) -> None:
    done = CliRunner().invoke(main, ["doctor"])
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("✗ Database"))
    assert lines[at].endswith("SQLite, not made yet")
    assert lines[at + 1].split() == ["→", "scipion-cloud", "up"]
    assert "missing" in lines[-1]


def test_a_program_that_is_not_there(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "mpirun"
    fake.write_text("#!/bin/sh\necho 'mpirun (Open MPI) 4.1.4'\n")
    fake.chmod(0o755)
    silent = tmp_path / "openbox"
    silent.write_text("#!/bin/sh\nexit 127\n")
    silent.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("UV", raising=False)
    found = {check.name: check for check in programs.examine(config)}
    assert (found["Open MPI"].verdict, found["Open MPI"].detail) == (Verdict.OK, "4.1.4")
    assert found["RELION"].verdict is Verdict.MISSING
    assert "apt-get install -y relion" in found["RELION"].remedy
    assert found["uv"].verdict is Verdict.MISSING
    assert found["Window manager"].verdict is Verdict.WARNING


def test_the_engines_of_this_machine_tell_their_versions(config: Config) -> None:
    found = {check.name: check for check in programs.examine(config)}
    # whether uv is found is for whoever starts the tests to decide
    assert {name for name, check in found.items() if check.verdict is not Verdict.OK} <= {"uv"}
    assert found["RELION"].detail.startswith("3.1")


def test_folders_that_others_can_look_into(config: Config) -> None:
    homes.step(config).work(lambda _: None)
    assert verdicts(machine.folders(config)) == {"Home folder": Verdict.OK}
    config.projects.chmod(0o755)
    (check,) = machine.folders(config)
    assert check.verdict is Verdict.WARNING
    assert check.remedy == f"chmod 700 {config.projects}"


@pytest.mark.parametrize(
    ("name", "said"), [('a "b" $c', "stumble"), ("long" * 20, "too long"), ("none", "not exist")]
)
def test_homes_that_scipion_or_sockets_cannot_bear(home: Path, name: str, said: str) -> None:
    odd = home / name
    if name != "none":
        odd.mkdir(mode=0o700)
    (check,) = machine.folders(Config(home=odd))
    assert check.verdict is Verdict.WARNING
    assert said in check.detail


def test_a_port_that_a_stranger_or_we_hold(
    config: Config, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = config.model_copy(update={"port": free_port})
    assert verdicts(machine.port(here)) == {f"Port {free_port}": Verdict.OK}
    with socket.create_server(("127.0.0.1", free_port)):
        (check,) = machine.port(here)
        assert check.verdict is Verdict.MISSING
        assert f"process {os.getpid()}" in check.detail
        assert f"--port {free_port + 1}" in check.remedy


def test_a_full_disk(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST", 2**60)
    monkeypatch.setattr(machine, "HOME_WANTS", 2**61)
    check = machine.disk(config)[0]
    assert check.verdict is Verdict.MISSING
    assert "Free at least" in check.remedy


def test_a_clock_that_is_behind(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.clock(config)[0].verdict is Verdict.OK
    monkeypatch.setattr(time, "time", lambda: 0.0)
    (check,) = machine.clock(config)
    assert check.verdict is Verdict.WARNING
    assert "before this program was installed" in check.detail


def test_a_database_server_that_is_not_there(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://cloud:s3cret@127.0.0.1:9/cloud"
    monkeypatch.setenv("SCIPION_CLOUD_DATABASE", url)
    (check,) = installation.database(config.model_copy(update={"database": url}))
    assert check.verdict is Verdict.MISSING
    assert "PostgreSQL cannot be used" in check.detail
    assert "refused" in check.detail
    assert "s3cret" not in check.detail


@pytest.mark.postgresql
def test_a_database_that_is_not_migrated(
    config: Config, monkeypatch: pytest.MonkeyPatch, postgresql_url: str
) -> None:
    monkeypatch.setenv("SCIPION_CLOUD_DATABASE", postgresql_url)
    (check,) = installation.database(config.model_copy(update={"database": postgresql_url}))
    assert check.verdict is Verdict.MISSING
    assert check.detail == "PostgreSQL, made by an older version"
