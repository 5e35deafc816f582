"""Projects made of other projects and of archives: real jobs, agents and storages, and a real Scipion."""

import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scipion_site import in_scipion

from scipion_cloud.config import Config, get_config
from scipion_cloud.controller import deployments
from scipion_cloud.controller import preparations as controller
from scipion_cloud.copies import job
from scipion_cloud.copies.order import FromArchive, Order
from scipion_cloud.deployments.states import Phase
from scipion_cloud.errors import Conflict, InvalidInput, NotFound
from scipion_cloud.jobs import JobId, backend_for
from scipion_cloud.model import Role, RunState
from scipion_cloud.portal import services
from scipion_cloud.records.models import (
    Deployment,
    Membership,
    Preparation,
    Project,
    Run,
    StorageConnection,
    User,
)
from scipion_cloud.tools.snapshot import read_project

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada(config: Config) -> Iterator[User]:
    for folder in (config.projects, config.agents, config.jobs):
        folder.mkdir(parents=True)
    yield User.objects.create_superuser("ada", "ada@example.org", "x")
    backend = backend_for(get_config())
    backend.cancel([each.id for each in backend.list()])


@pytest.fixture
def sven() -> User:
    return User.objects.create_user("sven", "sven@example.org", "x")


@pytest.fixture
def project(ada: User) -> Project:
    """What has the looks of a Scipion project, kept here."""
    project = Project.objects.create(name="Ribosome", owner=ada)
    project.data.mkdir(parents=True)
    (project.data / "a.txt").write_text("one")
    (project.path / "link").symlink_to(project.data / "a.txt")
    database(project.path / "project.sqlite")
    return project


def database(file: Path) -> None:
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE Objects (id, parent_id, name, classname, value, label, comment, creation)")
    db.commit()
    db.close()


@pytest.fixture
def connection(ada: User, tmp_path: Path) -> StorageConnection:
    (tmp_path / "storage").mkdir()
    return services.connect_storage(ada, "Shelf", f"file://{tmp_path}/storage", {})


def until(what: Callable[[], object]) -> None:
    """Let the controller look until something is so."""
    deadline = time.monotonic() + 240
    while not what():
        assert time.monotonic() < deadline, "this did not happen in time"
        controller.reconcile_preparations()
        deployments.reconcile_deployments()
        time.sleep(0.05)


def ended(project: Project) -> Preparation:
    """The preparation of a new project once it has ended."""
    until(lambda: Preparation.objects.get(project=project).ended)
    return Preparation.objects.get(project=project)


def fresh(project: Project) -> Project:
    return Project.objects.get(pk=project.pk)


def phase(project: Project) -> Phase:
    return Phase(Deployment.objects.filter(project=project)[0].phase)


def left_over(project: Project) -> list[str]:
    """What is left of the making of a project."""
    names = [path.name for path in get_config().projects.iterdir() if path.name.startswith(".")]
    copies = get_config().copies / project.folder
    return names + ([str(copies)] if copies.exists() else [])


@pytest.mark.scipion
def test_a_real_project_copied_and_read_by_scipion(ada: User, config: Config, software: Path) -> None:
    original = services.create_project(ada, "Original", demo=False)
    made = (
        "from pwem.protocols import ProtImportMovies as P\n"
        "for _ in range(2):\n"
        "    box = project.newProtocol(P); project.saveProtocol(box)\n"
        "box.filesPath.set(sys.argv[1] + '/data')\n"
        "box.setStatus('running'); project._storeProtocol(box); project.mapper.commit()\n"
    )
    in_scipion(config, made, original.path)
    (original.path / "Runs" / "note").symlink_to(original.path / "project.sqlite")
    assert any(box.is_active for box in read_project(original.path).protocols)
    copy = services.copy_project(ada, "Copy", origin=services.Origin(original))
    assert not copy.is_open
    with pytest.raises(Conflict, match="not here yet"):
        services.start_run(ada, copy, "movie-alignment", {})
    told = ended(copy)
    assert (told.state, told.message) == ("done", "")
    assert fresh(copy).is_open
    boxes = {str(box.id): box.status for box in read_project(copy.path).protocols}
    assert sorted(boxes.values()) == ["aborted", "saved"], "nothing works in the copy"
    shown = "answer = {r.strId(): r.getStatus() for r in project.getRuns()}"
    assert in_scipion(config, shown, copy.path) == boxes
    folders = "answer = sorted(str(r.filesPath.get()) for r in project.getRuns())"
    assert str(copy.path / "data") in in_scipion(config, folders, copy.path), "boxes read the copy's files"
    assert str((copy.path / "Runs" / "note").readlink()) == "../project.sqlite"
    assert any(box.is_active for box in read_project(original.path).protocols), "the original is as it was"
    until(lambda: not left_over(copy))


def test_a_copy_kept_in_a_storage_is_saved_there(
    ada: User, project: Project, connection: StorageConnection, tmp_path: Path
) -> None:
    place = services.Place(connection, "copy")
    copy = services.copy_project(ada, "Copy", origin=services.Origin(project), place=place)
    with pytest.raises(Conflict, match="opens by itself"):
        services.open_project(ada, copy)
    assert ended(copy).state == "done"
    until(lambda: phase(copy) is Phase.READY)
    assert fresh(copy).is_open
    assert (copy.data / "a.txt").read_text() == "one"
    services.close_project(ada, fresh(copy))
    until(lambda: phase(copy) is Phase.RELEASED)
    assert [g.number for g in services.history(copy)][-1] == 1
    again = services.copy_project(ada, "From the storage", origin=services.Origin(fresh(copy)))
    assert ended(again).message == ""
    assert (again.path / "link").read_text() == "one"
    assert str((again.path / "link").readlink()) == "data/a.txt"
    assert not (again.path / ".scipion-cloud").exists()
    full = tmp_path / "storage" / "full"
    full.mkdir()
    (full / "something").write_text("of somebody")
    with pytest.raises(InvalidInput, match="empty one"):
        services.copy_project(
            ada, "x", origin=services.Origin(project), place=services.Place(connection, "full")
        )


def test_an_earlier_generation(ada: User, project: Project, connection: StorageConnection) -> None:
    place = services.Place(connection, "copy")
    copy = services.copy_project(ada, "Copy", origin=services.Origin(project), place=place)
    until(lambda: Deployment.objects.filter(project=copy).exists() and phase(copy) is Phase.READY)
    services.save_now(ada, fresh(copy))
    until(lambda: any(g.number == 1 for g in services.history(copy)))
    (copy.data / "a.txt").write_text("two")
    services.close_project(ada, fresh(copy))
    until(lambda: phase(copy) is Phase.RELEASED)
    for generation, text in ((1, "one"), (None, "two")):
        made = services.copy_project(ada, "Again", origin=services.Origin(fresh(copy), generation=generation))
        assert ended(made).message == ""
        assert (made.data / "a.txt").read_text() == text
    with pytest.raises(NotFound):
        services.copy_project(ada, "Never", origin=services.Origin(fresh(copy), generation=99))


def test_closed_while_it_is_copied_it_is_copied_from_its_storage(
    ada: User, project: Project, connection: StorageConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = services.copy_project(
        ada, "Kept", origin=services.Origin(project), place=services.Place(connection, "kept")
    )
    until(lambda: Deployment.objects.filter(project=original).exists() and phase(original) is Phase.READY)
    copy = services.copy_project(ada, "Copy", origin=services.Origin(fresh(original)))
    backend = backend_for(get_config())
    row = Preparation.objects.get(project=copy)
    deadline = time.monotonic() + 240
    while not backend.status([JobId(row.job_id or 0)])[JobId(row.job_id or 0)].state.is_final:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    services.close_project(ada, fresh(original))
    told = ended(copy)
    assert (told.state, told.attempt, told.deployment) == ("done", 2, None)
    assert (copy.data / "a.txt").read_text() == "one"


def test_a_killed_job_is_started_again(ada: User, project: Project) -> None:
    lock = sqlite3.connect(project.path / "project.sqlite")
    lock.execute("BEGIN EXCLUSIVE")  # the job waits for it
    copy = services.copy_project(ada, "Copy", origin=services.Origin(project))
    parts = get_config().projects / f".{copy.folder}.parts"
    deadline = time.monotonic() + 120
    while not parts.exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    name = str(get_config().copies / copy.folder).encode()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if process.read_bytes().rstrip(b"\0").endswith(b"copies.job\0" + name):
                os.kill(int(process.parent.name), signal.SIGKILL)
        except OSError:
            continue
    lock.close()
    told = ended(copy)
    assert (told.state, told.attempt) == ("done", 2)
    assert (copy.data / "a.txt").read_text() == "one"
    until(lambda: not left_over(copy))


def test_cancelled_nothing_is_left(ada: User, project: Project) -> None:
    copy = services.copy_project(ada, "Copy", origin=services.Origin(project))
    services.delete_project(ada, copy)
    assert ended(copy).state == "cancelled"
    assert not copy.path.exists()
    assert left_over(copy) == []


def archive(project: Project, name: str, *names: str) -> None:
    with tarfile.open(project.data / name, "w:gz") as tar:
        for each in names:
            tar.add(project.path / each, f"Old/{each}")


def test_an_archive_is_unpacked(ada: User, project: Project) -> None:
    archive(project, "old one.tar.gz", "project.sqlite", "data/a.txt", "link")
    assert [(p.name, f.path) for p, f in services.archives(ada)] == [("Ribosome", "old one.tar.gz")]
    made = services.copy_project(ada, "Unpacked", origin=services.Origin(project, archive="old one.tar.gz"))
    told = ended(made)
    assert (told.state, told.message) == ("done", "")
    assert (made.data / "a.txt").read_text() == "one"
    assert [p["path"] for p in told.status["problems"]] == ["Old/link"], "it leads to where the project was"
    assert read_project(made.path).problems == ()
    until(lambda: not left_over(made))


def test_what_fails_is_told_and_can_be_tried_again(ada: User, project: Project) -> None:
    archive(project, "bad.tgz", "data/a.txt")
    made = services.copy_project(ada, "Unpacked", origin=services.Origin(project, archive="bad.tgz"))
    told = ended(made)
    assert told.state == "failed"
    assert "no Scipion project in this archive" in told.message
    assert not fresh(made).is_open
    assert [n for n in left_over(made) if n.startswith(".")] == []
    archive(project, "bad.tgz", "project.sqlite", "data/a.txt")
    services.copy_again(ada, fresh(made))
    assert ended(made).state == "done"
    with pytest.raises(Conflict, match="nothing to be tried"):
        services.copy_again(ada, fresh(made))


def test_a_failed_one_is_deleted_with_all_that_is_left(ada: User, project: Project) -> None:
    archive(project, "bad.tgz", "data/a.txt")
    made = services.copy_project(ada, "Unpacked", origin=services.Origin(project, archive="bad.tgz"))
    assert ended(made).state == "failed"
    services.delete_project(ada, fresh(made))
    until(lambda: Preparation.objects.get(project=made).state == "cancelled")
    assert left_over(made) == []


def test_only_what_one_may_see_and_nothing_at_work(ada: User, sven: User, project: Project) -> None:
    archive(project, "a.tgz", "project.sqlite")
    for origin in (services.Origin(project), services.Origin(project, archive="a.tgz")):
        with pytest.raises(NotFound):
            services.copy_project(sven, "Stolen", origin=origin)
    assert services.can_be_copied(sven) == []
    assert services.archives(sven) == []
    for path in ("../project.sqlite", "missing.tgz", "/etc/passwd", ""):
        if path:
            with pytest.raises(NotFound):
                services.copy_project(ada, "x", origin=services.Origin(project, archive=path))
    with pytest.raises(InvalidInput, match=r"Choose a \.tar"):
        services.copy_project(ada, "x", origin=services.Origin(project, archive="a.txt"))
    run = Run.objects.create(project=project, user=ada, tool="movie-alignment", parameters={})
    with pytest.raises(Conflict, match="A run is going on"):
        services.copy_project(ada, "x", origin=services.Origin(project))
    Run.objects.filter(pk=run.pk).update(state=RunState.FINISHED.value)
    assert Project.objects.count() == 1
    Membership.objects.create(project=project, user=sven, role=Role.VIEWER.value)
    mine = services.copy_project(sven, "Mine", origin=services.Origin(project))
    assert mine.owner == sven
    assert ended(mine).state == "done"


def test_a_link_in_the_place_of_an_archive_is_not_followed(
    ada: User, project: Project, tmp_path: Path
) -> None:
    archive(project, "a.tgz", "project.sqlite", "data/a.txt")
    (project.data / "a.tgz").rename(tmp_path / "secret.tgz")
    (project.data / "a.tgz").symlink_to(tmp_path / "secret.tgz")
    with pytest.raises(NotFound):
        services.copy_project(ada, "x", origin=services.Origin(project, archive="a.tgz"))
    folder = tmp_path / "job"
    folder.mkdir()
    order = Order(tmp_path / "new", FromArchive(str(project.path), "data/a.tgz"))
    order.write(folder)
    done = subprocess.run([sys.executable, "-m", job.__name__, folder], check=False)  # it limits its memory
    assert done.returncode == 1
    assert not order.ready.exists()
