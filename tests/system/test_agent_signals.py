"""A signal in every phase does the right thing at once; kill -9 in every phase loses nothing."""

import signal
import time

import pytest
from agent_site import LARGE, Site, ends_well, lock, newest, tree, works

from scipion_cloud.deployments.states import Exit, Phase


def test_sigterm_while_locking_leaves(project: Site) -> None:
    before = lock(project)
    project.steer("gone")
    agent = project.open(apart=True)
    agent.wait_for(lambda s: s.errors and s.phase is Phase.LOCKING)
    agent.stop()
    assert agent.end() == Exit.RELEASED
    assert lock(project) == before


def test_sigterm_while_fetching_stops_at_once_and_keeps_what_has_arrived(project: Site) -> None:
    project.steer("hold-read")
    agent = project.open(apart=True)
    agent.wait_phase(Phase.STAGING_IN)
    while not lock(project).live:
        time.sleep(0.01)
    agent.stop()
    assert agent.end() == Exit.RELEASED  # though a read hangs
    assert lock(project).released is not None
    assert newest(project) == 1
    project.steer()
    again = project.open()
    again.wait_whole()
    assert tree(project.folder / "work") == project.shown()


def test_sigterm_during_a_save_lets_it_end_and_saves_what_came_after(project: Site) -> None:
    agent = project.open(apart=True)
    work = works(agent, project)
    project.steer("hold-write")
    agent.client.save()
    agent.wait_for(lambda s: s.phase is Phase.SAVING and s.saving and s.saving.bytes_total)
    (work / "late.txt").write_text("written during the save")
    agent.stop()
    agent.stop()  # impatience does no harm
    agent.wait_for(lambda s: s.closing)
    assert lock(project).live
    project.steer()
    ends_well(agent, project)
    assert newest(project) == 3
    assert "late.txt" in project.shown()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_mean_the_same(project: Site, number: signal.Signals) -> None:
    agent = project.open(apart=True)
    works(agent, project)
    agent.process.send_signal(number)
    ends_well(agent, project)


def test_programs_get_their_time_before_the_last_save(project: Site) -> None:
    agent = project.open(stop_grace=600)
    work = works(agent, project)
    agent.stop()
    agent.wait_for(lambda s: "to finish" in s.message)
    (work / "finished.txt").write_text("in time")
    agent.stop()  # the second one ends the wait
    ends_well(agent, project)
    assert "finished.txt" in project.shown()


def test_closing_while_files_arrive_loses_nothing(project: Site) -> None:
    project.steer("hold-large")
    agent = project.open()
    work = works(agent, project, whole=False)
    status = agent.status()
    assert status.arriving is not None
    assert (status.arriving.files, status.arriving.bytes) == (1, len(LARGE))
    assert not (work / "data" / "movie.mrc").exists()
    agent.stop()
    assert agent.end() == Exit.RELEASED
    assert project.shown() == {**tree(work), "data/movie.mrc": LARGE}


def test_a_copy_left_unfinished_is_not_taken_for_work_when_the_project_has_gone_on(project: Site) -> None:
    project.steer("hold-large")
    here = project.open()
    works(here, project, whole=False)
    here.stop()
    assert here.end() == 0
    project.steer()
    there = project.open("elsewhere")
    there.wait_whole()
    (project.folder / "elsewhere" / "result.star").write_text("improved elsewhere\n")
    there.stop()
    ends_well(there, project, "elsewhere")
    again = project.open()
    again.wait_whole()
    assert (project.folder / "work" / "result.star").read_text() == "improved elsewhere\n"
    again.stop()
    ends_well(again, project)
    assert project.shown()["result.star"] == b"improved elsewhere\n"


@pytest.mark.parametrize("hold", ["gone", "hold-create"])
def test_killed_while_locking(project: Site, hold: str) -> None:
    project.steer(hold)
    agent = project.open(apart=True)
    agent.wait_phase(Phase.LOCKING)
    agent.kill()
    project.steer()
    again = project.open()
    works(again, project)
    again.stop()
    ends_well(again, project)


def test_killed_while_fetching(project: Site) -> None:
    project.steer("hold-read")
    agent = project.open(apart=True)
    agent.wait_for(lambda s: s.project and s.project.files_total)
    agent.kill()
    assert lock(project).live
    project.steer()
    again = project.open()  # does not wait for its own lock
    works(again, project)
    again.stop()
    ends_well(again, project)


def test_killed_while_people_work(project: Site) -> None:
    agent = project.open(apart=True)
    work = works(agent, project)
    (work / "Runs/000002_Import/log").unlink()
    agent.kill()
    again = project.open()
    status = again.wait_phase(Phase.READY)
    assert status.unsaved
    assert (work / "result.star").exists()
    assert not (work / "Runs/000002_Import/log").exists()
    again.wait_whole()
    again.stop()
    ends_well(again, project)


def test_killed_while_people_work_and_large_files_arrive(project: Site) -> None:
    project.steer("hold-large")
    agent = project.open(apart=True)
    work = works(agent, project, whole=False)
    agent.kill()
    again = project.open()
    first = again.wait_phase(Phase.READY)
    assert first.arriving is not None, "it says at once that not all is here"
    project.steer()
    again.wait_whole()
    assert (work / "result.star").exists()
    assert (work / "data/movie.mrc").read_bytes() == LARGE
    again.stop()
    ends_well(again, project)


@pytest.mark.parametrize("closing", [False, True])
def test_killed_during_a_save(project: Site, closing: bool) -> None:
    agent = project.open(apart=True)
    work = works(agent, project)
    (work / "Runs/000002_Import/log").write_text("changed\n")
    project.steer("hold-write")
    if closing:
        agent.stop()
    else:
        agent.client.save()
    agent.wait_for(lambda s: s.saving and s.saving.bytes_total)
    agent.kill()
    project.steer()
    again = project.open()
    again.wait_whole()
    again.stop()
    ends_well(again, project)
    assert project.shown()["Runs/000002_Import/log"] == b"changed\n"


def test_killed_on_the_way_to_an_earlier_generation(project: Site) -> None:
    """What was saved right before is there when people can work again, and nothing else."""
    agent = project.open(apart=True)
    work = works(agent, project)
    (work / "Runs/000002_Import/log").unlink()
    agent.client.save(wait=True)
    before = tree(work)
    project.steer("hold-kept")
    agent.client.revert(1)
    agent.wait_for(lambda _: not (work / "result.star").exists())
    agent.kill()
    project.steer()
    again = project.open()
    again.wait_whole()
    assert tree(work) == before
    again.stop()
    ends_well(again, project)
    assert newest(project) == 2
