"""What the controller makes of desktops, their jobs and what goes wrong, with the real local batch system."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from scipion_cloud.config import Config
from scipion_cloud.controller import desktops as controller
from scipion_cloud.desktops.settings import DesktopSettings, Phase, SessionState
from scipion_cloud.jobs import JobId, JobSpec, JobState, backend_for
from scipion_cloud.model import DesktopState
from scipion_cloud.records.models import Desktop, Project, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def project(home: Path) -> Project:
    user = User.objects.create_user("ada", "ada@example.org")
    project = Project.objects.create(name="Ribosomes", owner=user)
    project.path.mkdir(parents=True)
    return project


def new(project: Project, hours: float = 1) -> Desktop:
    return Desktop.objects.create(
        project=project, user=project.owner, deadline=timezone.now() + timedelta(hours=hours)
    )


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes jobs run a line of shell in the place of a session."""

    def use(line: str) -> None:
        def spec(desktop: Desktop) -> JobSpec:
            log = desktop.path / "session.log"
            return JobSpec(("sh", "-c", line), cwd=desktop.path, stdout=log, stderr=log)

        monkeypatch.setattr(controller, "_spec", spec)

    return use


def reconcile_until(desktop: Desktop, state: DesktopState) -> Desktop:
    for _ in range(4000):
        controller.reconcile_desktops()
        desktop.refresh_from_db()
        if desktop.status is state:
            return desktop
        time.sleep(0.025)
    raise AssertionError(f"it stays {desktop.state}: {desktop.message}")


def test_a_desktop_is_ready_once_its_screen_is(project: Project, session: Callable[[str], None]) -> None:
    session("sleep 60")
    desktop = new(project)
    controller.start_desktop(desktop)
    first = desktop.job_id
    controller.reconcile_desktops()
    desktop.refresh_from_db()
    assert (desktop.status, desktop.job_id) == (DesktopState.STARTING, first)
    SessionState(Phase.X_READY).write(desktop.path)
    assert reconcile_until(desktop, DesktopState.READY).ready is not None
    Desktop.objects.update(stop_requested=True)
    ended = reconcile_until(desktop, DesktopState.STOPPED)
    assert ended.message == "Stopped."
    assert ended.ended is not None


def test_the_settings_name_the_project_and_its_scipion(project: Project, config: Config) -> None:
    desktop = new(project)
    wanted = controller.settings_of(desktop, config)
    wanted.write(desktop.path)
    assert DesktopSettings.read(desktop.path) == wanted
    assert wanted.command[0] == str(config.scipion_python)
    assert wanted.command[-2:] == ["project", project.path.name]
    assert wanted.environ["SCIPION_USER_DATA"] == str(config.home)


def test_a_session_that_fails_is_told_with_the_end_of_its_log(
    project: Project, session: Callable[[str], None]
) -> None:
    session("echo the screen is broken; exit 3")
    desktop = reconcile_until(new(project), DesktopState.FAILED)
    assert "the screen is broken" in desktop.message


def test_the_deadline_ends_a_desktop(project: Project, session: Callable[[str], None]) -> None:
    session("sleep 60")
    desktop = new(project)
    controller.start_desktop(desktop)
    Desktop.objects.update(deadline=timezone.now())
    assert reconcile_until(desktop, DesktopState.STOPPED).message == "The desktop's time was over."


def test_stopped_before_it_had_a_job(project: Project) -> None:
    desktop = new(project)
    Desktop.objects.update(stop_requested=True)
    reconcile_until(desktop, DesktopState.STOPPED)


def test_a_crash_before_the_job_was_noted_does_not_lose_the_job(
    project: Project, session: Callable[[str], None], config: Config
) -> None:
    session("sleep 60")
    desktop = new(project)
    controller.start_desktop(desktop)
    Desktop.objects.update(job_id=None, stop_requested=True)
    reconcile_until(desktop, DesktopState.STOPPED)
    job = JobId(desktop.job_id or 0)
    assert backend_for(config).status([job])[job].state is JobState.CANCELLED


def test_one_bad_desktop_does_not_hold_up_the_others(
    project: Project, session: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    session("sleep 60")
    bad, good = new(project), new(project)
    real = controller.look_at

    def look_at(desktop: Desktop) -> None:
        if desktop.pk == bad.pk:
            raise RuntimeError("broken")
        real(desktop)

    monkeypatch.setattr(controller, "look_at", look_at)
    controller.start_desktop(good)
    SessionState(Phase.SCIPION_READY).write(good.path)
    reconcile_until(good, DesktopState.READY)
    Desktop.objects.filter(pk=good.pk).update(stop_requested=True)
    reconcile_until(good, DesktopState.STOPPED)


def test_a_full_queue_is_told_and_tried_again(
    project: Project, session: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    session("sleep 60")
    from scipion_cloud.errors import QueueFull
    from scipion_cloud.jobs import LocalBackend

    desktop = new(project)
    with monkeypatch.context() as patch:

        def full(self: LocalBackend, spec: JobSpec, key: str) -> JobId:
            raise QueueFull("The queue is full; try again when some jobs have ended.")

        patch.setattr(LocalBackend, "submit", full)
        controller.reconcile_desktops()
    desktop.refresh_from_db()
    assert desktop.status is DesktopState.STARTING
    assert "queue is full" in desktop.message
    controller.reconcile_desktops()
    desktop.refresh_from_db()
    assert desktop.job_id is not None
    assert desktop.message == ""
    Desktop.objects.update(stop_requested=True)
    reconcile_until(desktop, DesktopState.STOPPED)
