"""Pages about storages and deployments: the wizard, the picker, and what each phase looks like."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from scipion_cloud.config import Config, get_config
from scipion_cloud.deployments.states import Phase
from scipion_cloud.portal import services
from scipion_cloud.records.models import Deployment, Project, StorageConnection, User
from scipion_cloud.storage import KINDS
from scipion_cloud.testing.servers.onedata import TOKEN, onedata_fake

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada(config: Config) -> User:
    config.projects.mkdir(parents=True)
    return User.objects.create_superuser("ada", "ada@example.org", "x")


@pytest.fixture
def client(ada: User) -> Client:
    client = Client()
    client.force_login(ada)
    return client


@pytest.fixture
def connection(ada: User, tmp_path: Path) -> StorageConnection:
    shelf = tmp_path / "shelf"
    (shelf / "grid 1" / "<b>'q'").mkdir(parents=True)
    return services.connect_storage(ada, "Shelf", f"file://{shelf}", {})


@pytest.fixture
def project(ada: User, connection: StorageConnection) -> Project:
    place = services.Place(connection, "apo")
    return Project.objects.create(name="Apo", owner=ada, storage=connection, storage_url=place.url)


def deployed(project: Project, phase: Phase, status: dict[str, Any]) -> Deployment:
    return Deployment.objects.create(
        project=project,
        user=project.owner,
        phase=phase.value,
        deadline=timezone.now() + timedelta(hours=50),
        status=status,
        generation=41,
        last_saved=timezone.now() - timedelta(minutes=2),
    )


def test_every_kind_has_its_form(client: Client) -> None:
    page = client.get(reverse("storage-kinds")).content.decode()
    for kind in KINDS:
        assert reverse("storage-connect", args=[kind.id]) in page
        form = client.get(reverse("storage-connect", args=[kind.id])).content.decode()
        for credential in kind.credentials:
            (field,) = re.findall(rf'<(?:input|textarea) id="f-{credential.name}"[^>]*>', form)
            assert credential.multiline or ('type="password"' in field) == credential.secret
    assert client.get(reverse("storage-connect", args=["floppy"])).status_code == 404


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        ("s3", {"url": "s3+https://x/y", "name": ""}, "Give the storage a name"),
        ("s3", {"url": "s3+https://x/y", "access_key": "a"}, "Secret key is needed"),
        ("s3", {"url": "ftp://x/y"}, "Begin the address with"),
        ("sftp", {"url": "sftp://u:secret@x/y", "password": "p"}, "Leave the password"),
        ("webdav", {"url": "davs://[::1", "user": "u"}, "not a URL"),
        ("posix", {"url": "file:///nowhere/at/all"}, "nowhere"),
    ],
)
def test_what_cannot_be_connected_says_why(
    client: Client, kind: str, given: dict[str, str], says: str
) -> None:
    form = {"name": "N", "secret_key": ""} | given
    answer = client.post(reverse("storage-connect", args=[kind]), form)
    assert answer.status_code == 422
    assert says in answer.content.decode()
    assert not StorageConnection.objects.exists()


def test_secrets_are_not_sent_back(client: Client) -> None:
    given = {"name": "N", "url": "nonsense", "access_key": "AK", "secret_key": "top-secret"}
    page = client.post(reverse("storage-connect", args=["s3"]), given).content.decode()
    assert "AK" in page
    assert "top-secret" not in page


def test_the_wizard_ends_on_the_page_of_the_storage(client: Client, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    form = {"name": "Disk", "url": f"file://{tmp_path}/new"}
    answer = client.post(reverse("storage-connect", args=["posix"]), form, follow=True)
    assert "What it can do" in answer.content.decode()
    assert not list((tmp_path / "new").rglob("selftest*")), "what was tried is gone"
    assert "Disk" in client.get(reverse("storages")).content.decode()
    found = StorageConnection.objects.get()
    assert found.exclusive
    assert services.storages.sealer().open(found.credentials) == {}
    client.post(reverse("storage-forget", args=[found.pk]))
    assert not StorageConnection.objects.exists()


def test_a_space_of_onedata_is_picked_from_a_list(client: Client) -> None:
    address = reverse("storage-spaces")
    for form, says in (
        ({"url": "https://x"}, "Begin the address"),
        ({"url": "onedata://"}, "Give the address of your Onezone"),
        ({"url": "onedata://x"}, "Give your access token"),
    ):
        assert says in client.post(address, form).content.decode()
    with onedata_fake() as fake:
        form = {"name": "Hub", "url": f"onedata+http://{fake.host}", "token": TOKEN}
        page = client.post(address, form).content.decode()
        assert '<option value="51ngle">my data (2026)' in page
        assert TOKEN not in page
        assert "access token" in client.post(address, form | {"token": "none"}).content.decode()
        connect = reverse("storage-connect", args=["onedata"])
        assert client.post(connect, form | {"space": "51ngle"}).status_code == 302
        assert (
            "What it can do"
            in client.get(reverse("storage", args=[StorageConnection.objects.get().pk])).content.decode()
        )


def test_the_picker_walks_and_tells(client: Client, connection: StorageConnection) -> None:
    address = reverse("storage-folder", args=[connection.pk])
    top = client.get(address).content.decode()
    assert "grid 1" in top
    assert ".scipion-cloud" not in top
    inside = client.get(address, {"path": "grid 1"}).content.decode()
    assert "&lt;b&gt;&#x27;q&#x27;" in inside
    assert "There are files here" in inside
    assert "This folder is empty" in client.get(address, {"path": "grid 1/<b>'q'"}).content.decode()
    assert "This folder is empty" in client.get(address, {"path": "none"}).content.decode()
    for path in ("..", "grid 1/../..", "a\0b", "x/./y"):
        answer = client.get(address, {"path": path})
        assert answer.status_code == 200
        assert 'role="alert"' in answer.content.decode()


def test_others_do_not_see_a_storage(client: Client, connection: StorageConnection) -> None:
    stranger = Client()
    stranger.force_login(User.objects.create_user("bob", "bob@example.org", "x"))
    for name in ("storage", "storage-folder"):
        assert stranger.get(reverse(name, args=[connection.pk])).status_code == 404
    assert stranger.post(reverse("storage-forget", args=[connection.pk])).status_code == 404
    form = {"name": "Mine now", "storage": str(connection.pk)}
    assert stranger.post(reverse("project-new"), form).status_code in (404, 422)
    assert not Project.objects.exists()


def test_a_project_is_taken_up_from_its_folder(client: Client, connection: StorageConnection) -> None:
    folder = Path(connection.url.removeprefix("file://")) / "old"
    folder.mkdir()
    (folder / "project.sqlite").write_bytes(b"")
    form = {"name": "Old", "storage": str(connection.pk), "existing": "yes", "folder-here": "old"}
    answer = client.post(reverse("project-new"), form)
    project = Project.objects.get()
    assert answer["Location"] == reverse("project", args=[project.pk])
    page = client.get(answer["Location"]).content.decode()
    assert "Asking the storage" in page
    told = client.get(reverse("project-expectation", args=[project.pk])).content.decode()
    assert "A Scipion project lies in this storage" in told
    assert 'name="import_legacy"' in told


COMING = {"files_done": 3, "files_total": 12, "bytes_done": 10**9, "bytes_total": 4 * 10**9}
PHASES: list[tuple[Phase, dict[str, Any], list[str]]] = [
    (Phase.LOCKING, {}, ["Taking the lock", "Stop and give it free"]),
    (
        Phase.STAGING_IN,
        {"project": COMING | {"rate": 5e7, "seconds_left": 61.0}, "source": COMING},
        ["Bringing the project here", "3 of 12 files", "61 s left", "Source"],
    ),
    (Phase.STAGING_OUT, {"saving": COMING}, ["Saving and closing", "3 of 12 files"]),
    (
        Phase.SAVE_FAILED,
        {"errors": [{"time": "2026-01-01T00:00:00Z", "text": "The storage <is> gone."}]},
        ["could not be made yet", "The storage &lt;is&gt; gone.", "Nothing is lost"],
    ),
]


@pytest.mark.parametrize(("phase", "status", "says"), PHASES, ids=lambda value: getattr(value, "value", ""))
def test_what_comes_and_goes_is_shown(
    client: Client, project: Project, phase: Phase, status: dict[str, Any], says: list[str]
) -> None:
    deployed(project, phase, status)
    page = client.get(reverse("project", args=[project.pk])).content.decode()
    part = client.get(reverse("project-deployment", args=[project.pk]), {"open": "no"}).content.decode()
    for text in says:
        assert text in page
        assert text in part


def test_an_open_project_says_when_it_was_saved(client: Client, project: Project) -> None:
    project.path.mkdir()
    status = {
        "unsaved": True,
        "arriving": {"files": 2, "bytes": 3 * 10**9},
        "errors": [{"time": "2026-01-01T00:00:00Z", "text": "No answer."}],
        "problems": [{"path": "a\\xff", "text": "It is a socket."}],
        "problems_total": 1,
        "question": "1,200 of 1,300 files are gone here.",
    }
    deployed(project, Phase.READY, status)
    page = client.get(reverse("project", args=[project.pk])).content.decode()
    for text in (
        *("generation 41", "not saved", "still arriving: 2 files", "closes in 2 d", "No answer."),
        *("It is a socket.", "1,200 of 1,300 files", "Yes, save it so", "My Movie Alignment"),
    ):
        assert text in page, text


def test_the_page_loads_itself_anew_when_the_project_comes_or_goes(client: Client, project: Project) -> None:
    address = reverse("project-deployment", args=[project.pk])
    assert client.get(address, {"open": "no"})["HX-Refresh"] == "true"  # nothing is going on
    deployment = deployed(project, Phase.STAGING_IN, {})
    assert "HX-Refresh" not in client.get(address, {"open": "no"})
    Deployment.objects.update(phase=Phase.READY.value)
    assert client.get(address, {"open": "no"})["HX-Refresh"] == "true"
    assert "HX-Refresh" not in client.get(address, {"open": "yes"})
    Deployment.objects.update(close_requested=True)
    assert client.get(address, {"open": "yes"})["HX-Refresh"] == "true"
    deployment.refresh_from_db()
    assert not deployment.is_usable


def test_nobody_works_in_a_closed_project(client: Client, project: Project) -> None:
    for name, kwargs in (("desktop-open", {}), ("tool", {"tool_id": "movie-alignment"})):
        answer = client.post(
            reverse(name, args=[project.pk], kwargs=None)
            if not kwargs
            else reverse(name, kwargs={"project_id": project.pk, **kwargs})
        )
        assert answer.status_code in (302, 409, 422), name
    assert not project.desktops.exists()
    assert not project.runs.exists()
    assert client.get(reverse("project-data", args=[project.pk])).status_code in (302, 409)
    assert not (get_config().projects / project.folder).exists()


def test_the_last_half_hour_is_announced(client: Client, project: Project) -> None:
    project.path.mkdir()
    deployed(project, Phase.READY, {})
    Deployment.objects.update(deadline=timezone.now() + timedelta(minutes=20))
    page = client.get(reverse("project", args=[project.pk])).content.decode()
    assert "This project closes in" in page
    client.post(reverse("project-extend", args=[project.pk]))
    assert "This project closes in" not in client.get(reverse("project", args=[project.pk])).content.decode()


def test_a_storage_that_is_gone_does_not_hide_the_project(
    client: Client, project: Project, connection: StorageConnection
) -> None:
    folder = Path(connection.url.removeprefix("file://"))
    folder.rename(folder.with_name("unplugged"))
    (folder.parent).chmod(0o700)
    assert client.get(reverse("project", args=[project.pk])).status_code == 200
    for name in ("project-expectation", "project-history"):
        assert client.get(reverse(name, args=[project.pk])).status_code == 200
