"""Opening, saving and closing by the portal's actions and the controller: real jobs, agents and storages."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from scipion_cloud.config import Config, get_config
from scipion_cloud.controller import deployments as controller
from scipion_cloud.deployments.states import Phase
from scipion_cloud.errors import Conflict, InvalidInput, NotFound
from scipion_cloud.jobs import JobId, backend_for
from scipion_cloud.model import RunState
from scipion_cloud.portal import services
from scipion_cloud.records.models import Deployment, Project, Run, StorageConnection, User
from scipion_cloud.storage import open_storage
from scipion_cloud.sync.lease import acquire
from scipion_cloud.sync.repository import Repository

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada(config: Config) -> Iterator[User]:
    for folder in (config.projects, config.agents, config.jobs):
        folder.mkdir(parents=True)
    yield User.objects.create_superuser("ada", "ada@example.org", "x")
    backend = backend_for(get_config())
    backend.cancel([job.id for job in backend.list()])


@pytest.fixture
def connection(ada: User, tmp_path: Path) -> StorageConnection:
    (tmp_path / "storage").mkdir()
    return services.connect_storage(ada, "Shelf", f"file://{tmp_path}/storage", {})


@pytest.fixture
def project(ada: User, connection: StorageConnection) -> Project:
    """A project that lies in its storage, as an earlier deployment left it, and is closed."""
    place = services.Place(connection, "ribosome 'S'")
    project = Project.objects.create(name="Ribosome", owner=ada, storage=connection, storage_url=place.url)
    project.path.mkdir()
    (project.path / "project.sqlite").write_bytes(b"a database of another time")
    (project.path / "data").mkdir()
    (project.path / "data" / "a.txt").write_text("one")
    (project.path / "link").symlink_to(project.path / "data" / "a.txt")
    services.open_project(ada, project)
    wait(project, Phase.READY)
    close(ada, project)
    return project


def wait(
    project: Project, *phases: Phase, until: Callable[[Deployment], bool] = lambda _: True
) -> Deployment:
    """Let the controller look until the last deployment is in one of these phases."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        controller.reconcile_deployments()
        deployment = project.deployments.get(pk=project.deployments.all()[0].pk)
        if deployment.state in phases and until(deployment):
            return deployment
        time.sleep(0.1)
    log = deployment.path / "agent.log"
    raise AssertionError(f"{deployment.phase}: {deployment.message}\n{log.exists() and log.read_text()}")


def close(user: User, project: Project) -> None:
    services.close_project(user, project)
    wait(project, Phase.RELEASED)


def test_a_project_comes_is_saved_and_goes(ada: User, project: Project, tmp_path: Path) -> None:
    assert not any(project.path.glob("*")), "the working copy goes once all is in the storage"
    assert (tmp_path / "storage" / "ribosome 'S'" / "data" / "a.txt").read_text() == "one"
    assert not project.is_open
    expected = services.expectation(project)
    assert expected.generation is not None
    assert (expected.generation.files, expected.locked, expected.fits) == (2, False, True)

    services.open_project(ada, project)
    opened = wait(project, Phase.READY)
    assert project.is_open
    assert opened.ready is not None
    assert (project.path / "data" / "a.txt").read_text() == "one"
    assert (project.path / "link").readlink() == Path(
        "data/a.txt"
    )  # absolute ones would lead astray elsewhere
    assert services.open_project(ada, project) == opened, "a second person finds it open"

    (project.path / "data" / "a.txt").write_text("two")
    services.save_now(ada, project)
    before = expected.generation.number
    saved = wait(project, Phase.READY, until=lambda d: d.generation == before + 1)
    assert saved.last_saved is not None
    services.go_back(ada, project, before)
    wait(project, Phase.READY, until=lambda d: d.generation == before + 2)
    assert (project.path / "data" / "a.txt").read_text() == "one"
    close(ada, project)
    assert [g.number for g in services.history(project)] == [before + 2, before + 1, before]
    assert services.open_project(ada, project, generation=before + 1)
    wait(project, Phase.READY)
    assert (project.path / "data" / "a.txt").read_text() == "two"


def test_a_killed_agent_is_followed_by_another(ada: User, project: Project) -> None:
    services.open_project(ada, project)
    deployment = wait(project, Phase.READY)
    (project.path / "new").write_text("not saved yet")
    os.kill(deployment.status["pid"], signal.SIGKILL)
    again = wait(project, Phase.READY, until=lambda d: d.attempt == 2)
    assert (project.path / "new").read_text() == "not saved yet"
    assert again.job_id != deployment.job_id
    close(ada, project)
    with open_storage(project.storage_url) as storage:
        repository = Repository(storage)
        latest = repository.latest()
        assert latest is not None
        assert b"new" in repository.manifest(latest.number)


def test_a_locked_project_says_who_has_it(ada: User, project: Project) -> None:
    with open_storage(project.storage_url) as storage:
        acquire(storage, deployment="other", host="beamline-7", user="bob@example.org", parameters={})
        assert services.expectation(project).locked
        services.open_project(ada, project)
        failed = wait(project, Phase.FAILED)
    assert "bob@example.org" in failed.message
    assert "beamline-7" in failed.message
    assert not project.is_open
    assert services.unsaved(project) is None


def test_credentials_lie_sealed_and_only_while_they_are_needed(
    ada: User, project: Project, connection: StorageConnection
) -> None:
    connection.credentials = services.storages.sealer().seal({})
    connection.save()
    deployment = services.open_project(ada, project)
    sealed = deployment.path / controller.CREDENTIALS
    assert sealed.stat().st_mode & 0o077 == 0
    wait(project, Phase.READY)
    close(ada, project)
    assert not sealed.exists()


def test_the_time_that_is_over_ends_runs_and_then_saves(ada: User, project: Project) -> None:
    services.open_project(ada, project)
    wait(project, Phase.READY)
    run = Run.objects.create(
        project=project, tool="movie-alignment", parameters={}, state=RunState.RUNNING.value
    )
    with pytest.raises(Conflict, match="at work in this project: a run"):
        services.close_project(ada, project)
    with pytest.raises(Conflict, match="End that first"):
        services.go_back(ada, project, 1)
    Deployment.objects.update(deadline=timezone.now() - timedelta(seconds=1))
    wait(project, Phase.READY, Phase.SAVING, until=lambda d: d.close_requested)
    run.refresh_from_db()
    assert run.cancel_requested
    assert not project.is_open
    with pytest.raises(Conflict):
        services.extend_project(ada, project)
    Run.objects.update(state=RunState.CANCELLED.value)  # as the controller of runs would
    assert wait(project, Phase.RELEASED).ended is not None


def test_time_is_given_within_bounds(ada: User, project: Project) -> None:
    for days in (0, -1, 31, float("nan")):
        with pytest.raises(InvalidInput):
            services.open_project(ada, project, days=days)
    services.open_project(ada, project, days=0.5)
    assert services.extend_project(ada, project, 2).seconds_left > 1.9 * 86400
    assert services.extend_project(ada, project, 1).seconds_left > 1.9 * 86400, "never less than it had"
    close(ada, project)


def test_an_open_project_is_not_deleted_and_a_closed_one_stays_in_its_storage(
    ada: User, project: Project, connection: StorageConnection, tmp_path: Path
) -> None:
    services.open_project(ada, project)
    with pytest.raises(Conflict, match="close it first"):
        services.delete_project(ada, project)
    with pytest.raises(Conflict, match="Projects are kept"):
        services.forget_storage(ada, connection)
    wait(project, Phase.READY)
    close(ada, project)
    services.delete_project(ada, project)
    assert (tmp_path / "storage" / "ribosome 'S'" / "data" / "a.txt").exists()
    again = services.adopt_project(ada, "Again", place=services.Place(connection, "ribosome 'S'"))
    services.open_project(ada, again)
    wait(again, Phase.READY)
    assert (again.path / "data" / "a.txt").read_text() == "one"


def test_one_folder_keeps_one_project(ada: User, project: Project, connection: StorageConnection) -> None:
    for folder in ("ribosome 'S'", "ribosome 'S'/data", ""):
        with pytest.raises(InvalidInput, match="Another project"):
            services.adopt_project(ada, "Twice", place=services.Place(connection, folder))
    with pytest.raises(InvalidInput, match="no Scipion project"):
        services.adopt_project(ada, "Nothing", place=services.Place(connection, "empty"))
    for folder in ("../other", "a/../b", "a\nb"):
        with pytest.raises(InvalidInput):
            services.adopt_project(ada, "Out", place=services.Place(connection, folder))


def test_folders_of_the_machine_are_the_operators_to_lend(ada: User, tmp_path: Path, config: Config) -> None:
    bob = User.objects.create_user("bob", "bob@example.org", "x")
    with pytest.raises(InvalidInput, match="operator"):
        services.connect_storage(bob, "Mine", f"file://{tmp_path}", {})
    with pytest.raises(NotFound):
        services.connection_for(bob, services.connect_storage(ada, "Hers", f"file://{tmp_path}", {}).pk)


def test_unsaved_work_of_a_lost_lease_waits_for_its_own_agent(ada: User, project: Project) -> None:
    services.open_project(ada, project)
    deployment = wait(project, Phase.READY)
    job = backend_for(get_config()).status([JobId(deployment.job_id or 0)])
    assert job
    (project.path / "new").write_text("work")
    Deployment.objects.update(
        phase=Phase.FAILED.value, status={**deployment.status, "unsaved": True}, ended=timezone.now()
    )
    assert services.unsaved(project) == deployment
    with pytest.raises(Conflict, match="could not be saved"):
        services.delete_project(ada, project)
    os.kill(deployment.status["pid"], signal.SIGKILL)
    again = services.open_project(ada, project)
    assert (again.pk, again.attempt) == (deployment.pk, 2)
    wait(project, Phase.READY)
    close(ada, project)
    with open_storage(project.storage_url) as storage:
        assert storage.read_bytes("new") == b"work"
