"""The life of an agent: open, work, save, go back, close."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from agent_site import PROJECT, Site, ends_well, lock, newest, tree, works

from scipion_cloud.errors import Conflict


def test_a_project_is_opened_worked_on_and_found_again_elsewhere(project: Site) -> None:
    agent = project.open(every=1)
    work = works(agent, project)
    (work / "link").symlink_to(work / "data" / "movie.mrc")
    agent.wait_for(lambda s: s.generation == 2 and s.last_saved)
    assert lock(project).live
    assert b"result.star" not in tree(work)
    agent.stop()
    ends_well(agent, project)
    again = project.open("elsewhere")
    again.wait_whole()
    other = project.folder / "elsewhere"
    assert tree(other) == tree(work)
    assert (other / "link").readlink() == Path("data/movie.mrc")
    again.stop()
    ends_well(again, project, "elsewhere")
    assert newest(project) == 2  # nothing had changed


def test_an_empty_folder_on_an_empty_storage_is_a_new_project(site: Site) -> None:
    agent = site.open()
    agent.wait_for(lambda s: s.last_checked)
    (site.folder / "work" / "first.txt").write_text("hello")
    assert agent.client.save(wait=True)["saved"]
    agent.stop()
    ends_well(agent, site)


def test_save_now_is_told_what_came_of_it(project: Site) -> None:
    agent = project.open()
    work = works(agent, project)
    done = agent.client.save(wait=True)
    assert (done["saved"], done["generation"], done["files"]) == (True, 2, 1)
    assert project.shown() == tree(work)
    assert agent.client.save(wait=True)["saved"] is False
    status = agent.status()
    assert status.last_checked is not None
    assert status.last_saved is not None
    assert status.last_checked > status.last_saved
    agent.client.close()
    ends_well(agent, project)


def test_the_deadline_closes_it(project: Site) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=20)
    agent = project.open(deadline=soon.isoformat())
    works(agent, project)
    warned = agent.wait_for(lambda s: s.warning)
    assert warned.deadline == soon
    agent.client.set_deadline(soon + timedelta(hours=3))
    agent.wait_for(lambda s: s.warning is None)
    agent.client.set_deadline(datetime.now(UTC))
    ends_well(agent, project)


def test_the_working_copy_is_removed_if_that_was_wished(project: Site) -> None:
    agent = project.open(remove_work=True)
    works(agent, project)
    agent.stop()
    assert agent.end() == 0
    assert list((project.folder / "work").iterdir()) == []
    assert "result.star" in project.shown()
    again = project.open()
    again.wait_whole()
    assert tree(project.folder / "work") == project.shown()


def test_a_source_comes_along(project: Site) -> None:
    movies = project.work("movies")
    (movies / "m1.mrc").write_bytes(b"frames")
    agent = project.open(source=movies.as_uri())
    agent.wait_whole()
    appeared = project.folder / "work.source" / "m1.mrc"
    agent.wait_for(lambda _: appeared.exists())
    assert appeared.read_bytes() == b"frames"
    (project.folder / "work" / "m1.mrc").symlink_to(appeared)
    agent.stop()
    assert agent.end() == 0
    elsewhere = project.open("elsewhere", source=movies.as_uri())
    elsewhere.wait_whole()
    assert (
        project.folder / "elsewhere" / "m1.mrc"
    ).readlink() == project.folder / "elsewhere.source" / "m1.mrc"


def test_back_to_an_earlier_generation_and_forth_again(project: Site) -> None:
    agent = project.open()
    agent.wait_whole()
    work = works(agent, project)
    (work / "Runs/000002_Import/log").write_text("changed\n")
    with pytest.raises(Conflict, match="no generation 9"):
        agent.client.revert(9, wait=True)
    assert newest(project) == 2  # what was there was saved first
    done = agent.client.revert(1, wait=True)
    assert done["generation"] == 3
    assert set(tree(work)) == set(PROJECT)
    assert (work / "Runs/000002_Import/log").read_bytes() == b"imported\n"
    assert agent.client.revert(2, wait=True)["generation"] == 4
    assert (work / "result.star").exists()
    agent.stop()
    ends_well(agent, project)


def test_beginning_with_an_earlier_generation(project: Site) -> None:
    agent = project.open()
    works(agent, project)
    agent.stop()
    ends_well(agent, project)
    early = project.open("elsewhere", generation=1)
    early.wait_whole()
    assert set(tree(project.folder / "elsewhere")) == set(PROJECT)
    early.stop()
    ends_well(early, project, "elsewhere")
    assert newest(project) == 3
