"""The chain with the real Scipion and RELION: to its end, again, through kills, and stopped."""

import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from scipion_site import (
    ChainRun,
    descendants,
    in_scipion,
    is_alive,
    make_project,
    statuses,
    until,
    write_movie,
)

from scipion_cloud.config import Config
from scipion_cloud.tools.bridge import call
from scipion_cloud.tools.snapshot import read_project

pytestmark = [pytest.mark.scipion, pytest.mark.timeout(200), pytest.mark.usefixtures("software")]


def counts(run: ChainRun) -> dict[str, int]:
    """Items in the alignment's output sets."""
    found = {}
    for file in (run.project / run.step("align")["run_dir"]).glob("*.sqlite"):
        with closing(sqlite3.connect(file)) as db:
            found[file.name] = db.execute("SELECT COUNT(*) FROM Objects").fetchone()[0]
    return found


def whole(movies: int) -> dict[str, int]:
    return {"movies.sqlite": movies, "micrographs_dose-weighted.sqlite": movies}


def test_a_chain_runs_can_be_repeated_and_moves_with_its_project(config: Config) -> None:
    project = make_project(config)
    gain = np.ones((256, 256), np.float32)
    import mrcfile

    with mrcfile.new(project / "data" / "gain.mrc") as mrc:
        mrc.set_data(gain)
    run = ChainRun(config, project, gain="gain.mrc", patchX=3, patchY=3)
    assert run.run() == 0
    assert run.state["status"] == "finished"
    assert [s["status"] for s in run.state["steps"].values()] == ["finished", "finished"]
    assert len(run.aligned()) == 3
    assert counts(run) == whole(3)
    records = [json.loads(line) for line in (run.extra / "movies.jsonl").read_text().splitlines()]
    assert [(r["name"], r["ok"]) for r in records] == [(f"movie_{i}.tif", True) for i in range(3)]
    assert len(list(run.extra.glob("*_global_shifts.png"))) == 3
    assert "Error" not in (run.extra.parent / "logs" / "run.stderr").read_text()

    # Our reader and a desktop see the same, a job of the batch system
    seen = read_project(project)
    assert seen.problems == ()
    assert [(p.label, p.status, p.job_id) for p in seen.protocols] == [
        ("import movies", "finished", "7"),
        ("align movies", "finished", "7"),
    ]
    first, second = seen.protocols
    assert second.parents == (first.id,)
    assert set(second.outputs) == {"outputMovies", "outputMicrographsDoseWeighted"}
    assert first.ended is not None
    assert first.started is not None
    assert second.created is not None
    assert first.started <= first.ended <= (second.ended or first.started)
    assert statuses(config, project) == {"import movies": "finished", "align movies": "finished"}

    # Running it again changes nothing
    micrograph = run.extra / run.aligned()[0]
    before = micrograph.stat().st_mtime_ns
    assert run.run() == 0
    assert micrograph.stat().st_mtime_ns == before
    assert len(read_project(project).protocols) == 2

    # Nothing holds the project's place: it goes elsewhere and is used there
    links = [p for p in project.rglob("*") if p.is_symlink()]
    assert links
    assert not [p for p in links if p.readlink().is_absolute()]
    moved = project.rename(project.with_name("moved-00000002"))
    assert all(p.exists() for p in moved.rglob("*") if p.is_symlink())
    program = """
align = [r for r in project.getRuns() if r.getClassName() == "ProtRelionMotioncor"][0]
answer = [align.outputMovies.getGain(), align.validate(), align.outputMicrographsDoseWeighted.getSize()]
"""
    assert in_scipion(config, program, moved) == ["Inputs/k1/gain.mrc", [], 3]


def test_a_killed_chain_goes_on_where_it_stood(config: Config) -> None:
    project = make_project(config, movies=6)
    with_gain = project / "data" / "gain.tif"
    write_movie(with_gain, frames=1)
    run = ChainRun(config, project, gain="gain.tif")
    process = run.start()
    until(lambda: run.movies_done() >= 3)
    below = descendants(process.pid)
    process.kill()
    process.wait()
    until(lambda: not any(is_alive(pid) for pid in below), timeout=60)  # nothing outlives the chain
    done = {name: (run.extra / name).stat().st_mtime_ns for name in run.aligned()}
    assert 3 <= len(done) < 6
    assert run.state["status"] == "running"

    assert run.run() == 0
    assert len(run.aligned()) == 6
    assert counts(run) == whole(6)
    kept = [name for name, time in done.items() if (run.extra / name).stat().st_mtime_ns == time]
    assert len(kept) >= 3  # finished movies were not aligned again
    assert len(read_project(project).protocols) == 2
    records = [json.loads(line) for line in (run.extra / "movies.jsonl").read_text().splitlines()]
    assert all(r["ok"] for r in records)  # the gain reference was found again


def test_a_stopped_chain_leaves_a_sound_project(config: Config) -> None:
    project = make_project(config, movies=6)
    run = ChainRun(config, project)
    process = run.start()
    until(lambda: run.movies_done() >= 1)
    below = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    until(lambda: not any(is_alive(pid) for pid in below), timeout=60)
    assert run.state["status"] == "aborted"
    assert run.step("align")["status"] == "aborted"
    assert statuses(config, project) == {"import movies": "finished", "align movies": "aborted"}

    assert run.run() == 0  # and can be taken up again
    assert counts(run) == whole(6)


def test_what_a_killed_job_left_is_settled(config: Config) -> None:
    project = make_project(config, movies=6)
    run = ChainRun(config, project)
    process = run.start()
    until(lambda: run.movies_done() >= 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    align = run.step("align")["protocol_id"]
    assert read_project(project).find(align).is_active  # type: ignore[union-attr]
    wanted = [{"id": align, "outcome": "failed", "message": "The machine lost power."}]
    wanted.append({"id": run.step("import")["protocol_id"], "outcome": "failed", "message": "no"})
    answer = call("settle", project, config=config, protocols=wanted)
    assert answer["status"] == {str(align): "failed", str(wanted[1]["id"]): "finished"}
    found = read_project(project).find(align)
    assert found is not None
    assert (found.status, found.error) == ("failed", "The machine lost power.")
    assert statuses(config, project)["align movies"] == "failed"


def test_what_a_stale_writer_undid_is_healed(config: Config) -> None:
    project = make_project(config, movies=1)
    run = ChainRun(config, project)
    assert run.run() == 0
    with closing(sqlite3.connect(project / "project.sqlite")) as db:
        db.execute("UPDATE Objects SET value = 'saved' WHERE name LIKE '%.status'")
        db.execute("UPDATE Objects SET value = NULL WHERE name LIKE '%.lastUpdateTimeStamp'")
        db.commit()
    call("settle", project, config=config, protocols=[])
    assert set(statuses(config, project).values()) == {"finished"}


def test_a_wrong_value_is_told_in_scipions_words(config: Config) -> None:
    project = make_project(config, movies=1)
    run = ChainRun(config, project, sumFrame0=5, sumFrameN=40)
    assert run.run() == 1
    assert run.state["status"] == "failed"
    assert "Frames range to sum must be within 1 - 8" in run.state["error"]
    assert statuses(config, project) == {"import movies": "finished", "align movies": "failed"}


def test_an_unknown_parameter_makes_no_protocol(config: Config) -> None:
    project = make_project(config, movies=1)
    run = ChainRun(config, project, colour="blue")
    assert run.run() == 1
    assert run.state["error"] == "ProtRelionMotioncor has no parameter colour."


def test_a_damaged_movie_is_named_with_its_reason(config: Config) -> None:
    project = make_project(config, movies=2)
    whole_movie = (project / "data" / "movie 1.tif").read_bytes()
    (project / "data" / "movie 1.tif").write_bytes(whole_movie[: len(whole_movie) // 2])
    run = ChainRun(config, project)
    run.run()
    records = {r["name"]: r for r in map(json.loads, (run.extra / "movies.jsonl").read_text().splitlines())}
    assert records["movie_0.tif"]["ok"]
    assert not records["movie_1.tif"]["ok"]
    assert records["movie_1.tif"]["error"]


def test_a_torn_run_database_is_replaced(config: Config) -> None:
    project = make_project(config, movies=1)
    run = ChainRun(config, project)
    assert run.run() == 0
    database = project / run.step("align")["run_dir"] / "logs" / "run.db"
    database.write_bytes(os.urandom(5000))
    seen = read_project(project)
    assert len(seen.protocols) == 2
    assert len(seen.problems) == 1
    align = run.step("align")["protocol_id"]
    call("settle", project, config=config, protocols=[{"id": align, "outcome": "failed", "message": "torn"}])
    assert read_project(project).problems == ()
    assert statuses(config, project)["align movies"] == "finished"


def test_a_home_with_an_odd_name(config: Config, tmp_path: Path) -> None:
    home = tmp_path / 'it\'s a "home" with $HOME and ünïcode'
    odd = config.model_copy(update={"home": home})
    run = ChainRun(odd, make_project(odd, movies=1))
    assert run.run() == 0
    assert len(run.aligned()) == 1
