"""What an open project is asked: to end what works in it and close, to confirm, to be taken over."""

import re
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from test_agent_server import Recorder

from scipion_cloud.config import Config
from scipion_cloud.controller import deployments as controller
from scipion_cloud.deployments.server import serving
from scipion_cloud.deployments.states import Phase
from scipion_cloud.errors import Conflict
from scipion_cloud.jobs import JobSpec, JobState, backend_for
from scipion_cloud.model import DesktopState, Role, RunState
from scipion_cloud.portal import services
from scipion_cloud.records.models import Deployment, Desktop, Project, Run, User
from scipion_cloud.storage import open_storage
from scipion_cloud.sync.lease import acquire

pytestmark = pytest.mark.django_db


class Asking(Recorder):
    """An agent whose save waits for an answer."""

    def confirm(self) -> None:
        self.told.append("confirm")


@pytest.fixture
def ada(config: Config) -> User:
    config.projects.mkdir(parents=True)
    return User.objects.create_superuser("ada", "ada@example.org", "x")


@pytest.fixture
def project(ada: User, tmp_path: Path) -> Project:
    (tmp_path / "shelf").mkdir()
    connection = services.connect_storage(ada, "Shelf", f"file://{tmp_path}/shelf", {})
    place = services.Place(connection, "apo")
    project = Project.objects.create(name="Apo", owner=ada, storage=connection, storage_url=place.url)
    project.path.mkdir()
    return project


@pytest.fixture
def client(ada: User) -> Client:
    client = Client()
    client.force_login(ada)
    return client


def deployed(project: Project, phase: Phase = Phase.READY, **more: object) -> Deployment:
    return Deployment.objects.create(
        project=project,
        user=project.owner,
        phase=phase.value,
        deadline=timezone.now() + timedelta(hours=5),
        **more,
    )


def close_form(client: Client, project: Project) -> str:
    """The strip's form that closes the project."""
    page = client.get(reverse("project-deployment", args=[project.pk]), {"open": "yes"}).content.decode()
    (form,) = re.findall(rf"<form[^>]*{reverse('project-close', args=[project.pk])}.*?</form>", page)
    return form


def test_closing_asks_first_if_it_ends_anything(client: Client, project: Project) -> None:
    deployment = deployed(project)
    assert "data-confirm" not in close_form(client, project)
    assert "cancel" not in close_form(client, project)
    for state in (RunState.RUNNING, RunState.QUEUED, RunState.FINISHED):
        Run.objects.create(project=project, tool="movie-alignment", parameters={}, state=state.value)
    desktop = Desktop.objects.create(
        project=project,
        user=project.owner,
        state=DesktopState.READY.value,
        deadline=timezone.now() + timedelta(hours=1),
    )
    form = close_form(client, project)
    assert 'data-confirm="End 2 runs and the desktop, save and close?"' in form
    assert 'name="cancel" value="yes"' in form
    address = reverse("project-close", args=[project.pk])
    told = client.post(address, follow=True).content.decode()  # by a page that did not know of them
    assert "at work in this project: 2 runs and the desktop" in told
    deployment.refresh_from_db()
    assert not deployment.close_requested
    client.post(address, {"cancel": "yes"})
    deployment.refresh_from_db()
    assert deployment.close_requested
    Run.objects.filter(state=RunState.QUEUED.value).update(state=RunState.CANCELLED.value)
    desktop.delete()
    assert services.at_work(project) == "a run"


def test_protocols_that_the_desktop_has_started_end_before_the_last_save(
    client: Client, project: Project, config: Config
) -> None:
    backend = backend_for(config)
    spec = JobSpec(("sleep", "1000"), project.path, memory_gb=0.1)
    job = backend.submit(spec, "from Scipion")
    backend.submit(replace(spec, cwd=project.path.parent), "of another project")
    deployment = deployed(project, close_requested=True)
    assert services.at_work(project) == "a protocol of the desktop"
    try:
        until = time.monotonic() + 120
        while not controller._is_quiet(deployment):
            assert time.monotonic() < until, "it does not end"
            time.sleep(0.05)
        assert backend.status([job])[job].state is JobState.CANCELLED
        assert [info.cwd for info in backend.list(limit=0)] == [str(project.path.parent)]
    finally:
        backend.cancel([info.id for info in backend.list()])
    assert services.at_work(project) == ""


@pytest.mark.parametrize(
    ("phase", "closing"), [(Phase.READY, False), (Phase.STAGING_OUT, True), (Phase.SAVE_FAILED, True)]
)
def test_a_question_can_be_answered_as_long_as_it_is_asked(
    client: Client, project: Project, phase: Phase, closing: bool
) -> None:
    question = "1,200 of 1,300 files are gone here."
    deployment = deployed(project, phase, close_requested=closing, status={"question": question})
    assert question in client.get(reverse("project", args=[project.pk])).content.decode()
    deployment.path.mkdir(parents=True)
    agent = Asking()
    with serving(agent, deployment.path):
        client.post(reverse("project-confirm", args=[project.pk]))
    assert agent.told == ["confirm"]


def test_only_a_manager_answers(ada: User, project: Project) -> None:
    deployment = deployed(project, Phase.SAVE_FAILED, status={"question": "All?"})
    bob = User.objects.create_user("bob", "bob@example.org", "x")
    services.add_member(ada, project, "bob@example.org", Role.EDITOR)
    stranger = Client()
    stranger.force_login(bob)
    deployment.path.mkdir(parents=True)
    agent = Asking()
    with serving(agent, deployment.path):
        answer = stranger.post(reverse("project-confirm", args=[project.pk]))
    assert answer.status_code in (403, 404)
    assert agent.told == []


def test_a_lock_whose_holder_lives_is_not_taken_over(ada: User, project: Project, client: Client) -> None:
    with open_storage(project.storage_url) as storage:
        lease = acquire(
            storage, deployment="d7", host="microscope", user="Ben", parameters={}, ttl=timedelta(minutes=5)
        )
        with pytest.raises(Conflict, match=r"cannot be taken over yet\. .*Ben"):
            services.open_project(ada, project, take_over="it looks idle")
        assert not project.deployments.exists()
        page = client.get(reverse("project-expectation", args=[project.pk])).content.decode()
        assert "Ben" in page
        assert "take_over" not in page
        assert re.search(r"<button[^>]*disabled>Open project", page)
        lease.confirm()
