"""What goes wrong around an agent: nothing is lost, and nothing is unlocked too early."""

import contextlib
import os
import sqlite3
import subprocess
import sys

import pytest
from agent_site import Site, ends_well, lock, tree, works

from scipion_cloud.deployments.states import Exit, Phase
from scipion_cloud.errors import Conflict
from scipion_cloud.storage import open_storage
from scipion_cloud.sync.repository import Repository


def test_nothing_is_unlocked_while_the_last_save_fails(project: Site) -> None:
    agent = project.open()
    works(agent, project)
    project.steer("full")
    agent.stop()
    status = agent.wait_phase(Phase.SAVE_FAILED)
    assert status.unsaved
    assert "The storage is full" in status.message
    agent.stop()
    agent.stop()
    agent.wait_for(lambda s: s.errors and s.errors[0].time > status.errors[0].time)  # it tries on
    assert lock(project).live
    project.steer()
    ends_well(agent, project)


def test_killed_after_the_last_save_failed_and_started_again(project: Site) -> None:
    agent = project.open(apart=True)
    works(agent, project)
    project.steer("full")
    agent.stop()
    agent.wait_phase(Phase.SAVE_FAILED)
    agent.kill()
    project.steer()
    again = project.open()
    again.wait_whole()
    again.stop()
    ends_well(again, project)
    assert "result.star" in project.shown()


def test_a_network_that_is_gone_for_a_while(project: Site) -> None:
    agent = project.open(every=1)
    work = works(agent, project)
    project.steer("gone")
    status = agent.wait_for(lambda s: s.errors and s.phase is Phase.READY)
    assert "does not answer" in status.errors[0].text
    assert status.unsaved
    (work / "meanwhile.txt").write_text("work goes on")
    project.steer()
    agent.wait_for(lambda s: not s.unsaved and "meanwhile.txt" in project.shown())
    agent.stop()
    ends_well(agent, project)


def test_a_network_that_is_gone_while_fetching(project: Site) -> None:
    project.steer("hold-read")
    agent = project.open()
    agent.wait_phase(Phase.STAGING_IN)
    project.steer("gone")
    agent.wait_for(lambda s: s.errors and s.phase is Phase.STAGING_IN)
    project.steer()
    works(agent, project)
    agent.stop()
    ends_well(agent, project)


def test_one_who_comes_second_is_told_who_has_it(project: Site) -> None:
    agent = project.open(user="Ada")
    agent.wait_whole()
    second = project.open("elsewhere", user="Ben")
    assert second.end() == Exit.LOCKED
    assert "Ada" in second.status().message
    assert second.status().phase is Phase.FAILED
    agent.stop()
    ends_well(agent, project)


def test_one_whose_lock_was_taken_over_stops_and_keeps_its_work(project: Site) -> None:
    agent = project.open(lease_ttl=10)
    work = works(agent, project)
    taker = project.open("elsewhere", take_over="the machine is gone", user="Ben", lease_ttl=10)
    assert agent.end() == Exit.LEASE_LOST
    assert "Ben" in agent.status().message
    assert (work / "result.star").exists()
    assert "result.star" not in project.shown()
    taker.wait_whole()
    (project.folder / "elsewhere" / "other.txt").write_text("by Ben")
    taker.stop()
    ends_well(taker, project, "elsewhere")
    again = project.open()  # must not be saved over Ben's
    assert again.end() == Exit.DIVERGED
    assert "Ben" in again.status().message
    assert (work / "result.star").exists()
    assert lock(project).released is not None
    assert "result.star" not in project.shown()


def test_two_agents_on_one_state(project: Site) -> None:
    agent = project.open()
    agent.wait_whole()
    command = [sys.executable, "-m", "scipion_cloud.cli", "agent", "run", "--storage", project.url]
    done = subprocess.run(
        [*command, "--work", project.folder / "work"], capture_output=True, text=True, check=False
    )
    assert done.returncode == Exit.BUSY
    assert f"process {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr
    agent.stop()
    ends_well(agent, project)


def test_an_emptied_working_copy_asks_before_it_empties_the_project(project: Site) -> None:
    agent = project.open()
    work = works(agent, project)
    before = project.shown()
    for path in (work / "data/movie.mrc", work / "Runs/000002_Import/log", work / "project.sqlite"):
        path.unlink()
    (work / "result.star").unlink()
    with pytest.raises(Conflict, match="would delete 3"):
        agent.client.save(wait=True)
    assert "would delete 3" in (agent.status().question or "")
    agent.stop()
    agent.wait_phase(Phase.SAVE_FAILED)
    assert project.shown() == before
    assert lock(project).live
    agent.client.confirm()
    ends_well(agent, project)
    assert project.shown() == {}


def test_a_file_that_cannot_be_saved_is_not_left_behind_in_silence(project: Site) -> None:
    agent = project.open()
    work = works(agent, project)
    db = sqlite3.connect(work / "locked.sqlite", isolation_level=None)
    for statement in ("CREATE TABLE t (x)", "BEGIN EXCLUSIVE", "INSERT INTO t VALUES (1)"):
        db.execute(statement)
    agent.stop()
    status = agent.wait_phase(Phase.SAVE_FAILED)
    assert "locked.sqlite" in (status.question or "")
    assert status.unsaved
    assert lock(project).live
    db.execute("COMMIT")
    db.close()
    assert agent.end() == Exit.RELEASED
    assert agent.status().unsaved is False
    copy = sqlite3.connect(project.storage / "locked.sqlite")
    assert copy.execute("SELECT x FROM t").fetchall() == [(1,)]
    copy.close()


def test_nothing_can_be_confirmed_that_was_not_asked(project: Site) -> None:
    agent = project.open()
    agent.wait_whole()
    with pytest.raises(Conflict, match="Nothing waits"):
        agent.client.confirm()


def test_a_folder_with_files_that_nobody_knows_is_left_alone(project: Site) -> None:
    (project.work() / "thesis.tex").write_text("mine")
    agent = project.open()
    assert agent.end() == Exit.NOT_READY
    assert "thesis.tex" in agent.status().message
    assert tree(project.folder / "work") == {"thesis.tex": b"mine"}
    assert lock(project).released is not None


def test_what_a_predecessor_left_is_not_opened_by_accident(site: Site) -> None:
    (site.storage / "project.sqlite").write_bytes(b"not ours")
    agent = site.open()
    assert agent.end() == Exit.NOT_READY
    assert "data import-legacy" in agent.status().message
    assert lock(site).released is not None


def test_it_is_not_called_closed_before_the_lock_is_released(project: Site) -> None:
    agent = project.open()
    works(agent, project)
    project.steer("hold-lock")
    agent.stop()
    status = agent.wait_for(lambda s: s.generation == 2 and s.last_checked > s.last_saved)
    assert status.phase is Phase.STAGING_OUT
    assert lock(project).released is None
    project.steer()
    ends_well(agent, project)


def test_old_generations_go_and_the_newest_stays(project: Site) -> None:
    agent = project.open(keep_nothing=True)
    work = works(agent, project)
    (work / "Runs/000002_Import/log").write_text("changed\n")
    agent.client.save(wait=True)
    with open_storage(project.url) as storage:
        agent.wait_for(lambda _: [g.number for g in Repository(storage).generations()] == [2])
    agent.stop()
    ends_well(agent, project)


def test_a_disk_that_is_full(project: Site) -> None:
    """The working copy's: too small for the project, then large enough, then filled up by the work itself."""
    disk = project.work("disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", disk], check=True)
    try:
        agent = project.open("disk/work")
        status = agent.wait_for(lambda s: s.errors)
        assert status.phase is Phase.STAGING_IN
        assert "not enough room" in status.errors[0].text
        subprocess.run(["mount", "-o", "remount,size=128m", disk], check=True)
        work = works(agent, project, "disk/work")
        for number in range(300):  # more to be written down than the page that a changing status leaves free
            (work / f"{number}.txt").write_text(str(number))
        fill = disk / "fill"
        with fill.open("wb", buffering=0) as file:
            for piece in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(piece)) == piece:
                        pass
        with pytest.raises(Conflict, match="Free some room"):
            agent.client.save(wait=True)
        assert agent.status().unsaved
        fill.unlink()
        agent.stop()
        ends_well(agent, project, "disk/work")
        assert tree(work)["result.star"]
    finally:
        agent.give_up()
        subprocess.run(["umount", "--lazy", disk], check=True)
