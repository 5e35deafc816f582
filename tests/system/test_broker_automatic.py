"""`scipion-cloud job submit --site automatic`, as Scipion's dialog calls it: where jobs go, or why not."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from broker_site import near_site, parcel, running

from scipion_cloud.config import Config
from scipion_cloud.jobs import JobState
from scipion_cloud.jobs.away import Away
from scipion_cloud.sites import state
from scipion_cloud.sites.looking import look
from scipion_cloud.sites.reading import read_sites

Submit = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a launched protocol, as far as its submission goes."""
    project = tmp_path / "home" / "projects" / "a project"
    run = project / "Runs" / "000007_ProtX"
    (run / "logs").mkdir(parents=True)
    with closing(sqlite3.connect(run / "logs" / "run.db")) as db, db:
        db.execute("CREATE TABLE Objects (id INTEGER, classname TEXT)")
        db.execute("INSERT INTO Objects VALUES (7, 'ProtX')")
    program = '"/opt/scipion env/python" "/opt/apps/pw_protocol_run.py"'
    command = f'{program} "{project}" Runs/000007_ProtX/logs/run.db 7'
    (run / "logs" / "7.job").write_text(f"#!/bin/bash\nexec {command} out err\n")
    imported = project / "Runs" / "000002_ProtImport" / "extra"
    imported.mkdir(parents=True)
    (project / "data").mkdir()
    for name in ("movie1", "movie2"):
        (project / "data" / name).write_bytes(name.encode() * 500_000)
        (imported / name).symlink_to(f"../../../data/{name}")
    rows = (
        (2, None, "2", "ProtImport", ""),
        (3, 2, "2.status", "String", "finished"),
        (4, 2, "2.workingDir", "String", "Runs/000002_ProtImport"),
        (7, None, "7", "ProtX", ""),
        (8, 7, "7.status", "String", "launched"),
        (9, 7, "7.workingDir", "String", "Runs/000007_ProtX"),
        (10, 7, "7.inputMovies", "Pointer", "2"),
    )
    with closing(sqlite3.connect(project / "project.sqlite")) as db, db:
        db.execute("CREATE TABLE Objects (id, parent_id, name, classname, value, label, comment, creation)")
        db.executemany("INSERT INTO Objects VALUES (?, ?, ?, ?, ?, '', '', '')", rows)
    return project


@pytest.fixture
def submit(project: Path, tmp_path: Path) -> Submit:
    def call(*options: str) -> "subprocess.CompletedProcess[str]":
        script = project / "Runs" / "000007_ProtX" / "logs" / "7.job"
        program = "from scipion_cloud.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", program, "job", "submit", "--site", "automatic", *options, str(script)],
            capture_output=True,
            text=True,
            cwd=project,
            env={**os.environ, "SCIPION_CLOUD_HOME": str(tmp_path / "home"), "SCIPION_CLOUD_CPUS": "1"},
            check=False,
        )

    return call


def test_a_job_goes_where_it_fits(submit: Submit, project: Path, tmp_path: Path) -> None:
    config = Config(home=tmp_path / "home", cpus=1)
    with near_site(config, tmp_path / "area", software=["relion"]):
        for site in read_sites(config):
            look(site, config)
        done = submit("--cpus", "2", "--package", "relion")
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
        (job,) = Away(config.jobs).live()
        assert (job.spec.site, job.spec.cpus, job.spec.cwd) == ("near", 2, project)
        assert job.spec.parcel == {
            "root": str(project),
            "run": "Runs/000007_ProtX",
            "needs": None,
            "protocol": 7,
            "protocol_class": "ProtX",
            "packages": ["relion"],
            "source": None,
        }
        done = submit("--cpus", "2", "--package", "xmipp3")
        assert (done.returncode, done.stdout) == (1, "")
        assert "No site can take this now." in done.stderr
        assert "Near by cannot take this: it has no Xmipp." in done.stderr
        assert "This machine cannot take this: it " in done.stderr
        done = submit("--memory", "0.1")  # fits here, where its files are
        assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
        assert [job.id for job in Away(config.jobs).live()] == [1]


def test_a_job_goes_where_its_files_are(submit: Submit, project: Path, tmp_path: Path) -> None:
    config = Config(home=tmp_path / "home", cpus=1)

    def chosen() -> str:
        """The site of the next job; all have links of 10 kB/s, by which 6 MB take ten minutes."""
        for name in ("alike", "near"):
            state.change(config, name, link={"bytes_per_second": 1e4})
        done = submit("--cpus", "2")
        assert done.returncode == 0, done.stderr
        return next(job.spec.site for job in Away(config.jobs).live() if job.id == int(done.stdout))

    with near_site(config, tmp_path / "area"):
        with (config.home / "sites.toml").open("a") as file:
            file.write(f'[alike]\narea = "{tmp_path / "area of alike"}"\nmax_cpus = 4\n')
        for site in read_sites(config):
            look(site, config)
        with running(config) as run:
            first = parcel(project, "mkdir -p out", "Runs/000002_ProtImport", site="near")
            assert run.end(run.backend.submit(first, "first")).state is JobState.DONE
        assert chosen() == "near"
        (project / "data" / "movie1").write_bytes(b"another one" * 400_000)
        (project / "data" / "movie2").touch()
        assert chosen() == "alike"  # the first by its name
