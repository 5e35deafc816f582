"""Who gets to a desktop's screen, for how long, and what they may do there: real portal, relay and Xtigervnc.

A terminal that notes what is typed stands in for Scipion.
"""

import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from desktop_site import Site, shake_hands, until
from scipion_cloud.desktops.settings import SessionState

pytestmark = pytest.mark.desktop

SCIPION = """#!/bin/sh
exec xterm -e sh -c 'cat > "$HOME/typed"'
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    base = tmp_path_factory.mktemp("rights")
    python = base / "software" / "scipion-env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(SCIPION)
    python.chmod(0o755)
    site = Site(base / "home", python.parents[2])
    site.home.mkdir()
    try:
        site.prepare(scipion=False)
        site.start("portal")
        site.start("controller")
        yield site
    finally:
        site.end()


@pytest.fixture
def desktop(site: Site) -> Path:
    """The folder of a desktop that is ready."""
    site.open()
    return Path(site.run("print(desktop.path)"))


def type_keys(connection: ClientConnection, text: str) -> None:
    for key in text:
        for down in (1, 0):
            message = struct.pack(">BBHI", 4, down, 0, 0xFF0D if key == "\n" else ord(key))
            connection.send(message)


def listen(connection: ClientConnection) -> None:
    """Until it is closed."""
    while True:
        connection.recv(15)


def typed(desktop: Path) -> str:
    return (desktop / "home" / "typed").read_text()


def status(
    site: Site, ticket: str, path: str, person: str | None = "owner", origin: str | None = None
) -> int:
    """The answer to a connection that must be refused."""
    with pytest.raises(InvalidStatus) as refused:
        site.socket(path, ticket, person, origin)
    return refused.value.response.status_code


def test_viewers_watch_and_editors_type(site: Site, desktop: Path) -> None:
    until(lambda: (desktop / "home" / "typed").exists())
    time.sleep(0.5)  # the window manager gives the terminal the keyboard
    ticket, path = site.ticket("viewer")
    with site.socket(path, ticket, "viewer") as connection:
        shake_hands(connection)
        type_keys(connection, "forbidden\n")
        connection.send(struct.pack(">BBHHHH", 3, 0, 0, 0, 64, 64))
        assert connection.recv(10)[:1] == b"\x00"  # a picture: all that was sent has been read
    ticket, path = site.ticket("owner")
    with site.socket(path, ticket, "owner") as connection:
        shake_hands(connection)
        type_keys(connection, "allowed\n")
        until(lambda: "allowed" in typed(desktop))
    assert "forbidden" not in typed(desktop)


def test_tickets_work_once_for_one_person_one_desktop_and_half_a_minute(site: Site, desktop: Path) -> None:
    ticket, path = site.ticket()
    with site.socket(path, ticket) as connection:
        shake_hands(connection)
    assert status(site, ticket, path) == 403
    ticket, path = site.ticket()
    assert status(site, ticket, path, "viewer") == 403
    ticket, path = site.ticket()
    assert status(site, ticket, "/desktops/00000000-0000-4000-8000-000000000000/socket") == 403
    ticket, path = site.ticket()
    site.run(
        "from scipion_cloud.records.models import DesktopTicket as T; from django.utils import timezone;"
        "T.objects.update(expires=timezone.now())"
    )
    assert status(site, ticket, path) == 403
    assert status(site, "", path) == 403


def test_other_origins_and_people_who_are_not_signed_in_are_refused(site: Site, desktop: Path) -> None:
    for person, origin in (("owner", "https://example.org"), ("owner", "null"), (None, None)):
        ticket, path = site.ticket()
        assert status(site, ticket, path, person, origin) == 403
        assert ticket not in (site.home / "portal.log").read_text()
    with site.client("stranger") as stranger:
        assert stranger.post("ticket/").status_code == 404
        assert stranger.post("open/").status_code == 404
        assert stranger.get("state/").status_code == 404
    with site.client("viewer") as viewer:
        for action in ("open/", "extend/", "stop/"):
            assert viewer.post(action).status_code == 403


def test_withdrawn_rights_end_a_connection(site: Site, desktop: Path) -> None:
    ticket, path = site.ticket("viewer")
    with site.socket(path, ticket, "viewer") as connection:
        shake_hands(connection)
        site.run("project.membership_set.all().delete()")
        with pytest.raises(ConnectionClosed) as closed:
            listen(connection)
    site.run("project.membership_set.create(user=people['viewer'], role='viewer')")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403
    assert "no longer" in closed.value.rcvd.reason


def test_extending_and_the_deadline(site: Site, desktop: Path) -> None:
    site.run("from datetime import timedelta as d; desktop.deadline -= d(hours=7); desktop.save()")
    with site.client("owner") as owner:
        before = owner.get("state/").json()["deadline"]
        assert owner.post("extend/").json()["deadline"] > before
        site.run("from django.utils import timezone; desktop.deadline = timezone.now(); desktop.save()")
        until(lambda: owner.get("state/").json()["state"] == "stopped")
        assert "time was over" in owner.get("state/").json()["message"]
        assert owner.post("ticket/").status_code == 409
    assert SessionState.read(desktop).message == "Stopped."


def test_a_killed_screen_is_told_and_leaves_nothing(site: Site, desktop: Path) -> None:
    pids = SessionState.read(desktop).pids
    ticket, path = site.ticket()
    with site.socket(path, ticket) as connection:
        shake_hands(connection)
        os.kill(pids["xserver"], signal.SIGKILL)
        with pytest.raises(ConnectionClosed) as closed:
            listen(connection)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4410
    with site.client("owner") as owner:
        until(lambda: owner.get("state/").json()["state"] == "failed")
        assert "signal 9" in owner.get("state/").json()["message"]
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()))


def test_a_desktop_survives_the_portal_and_the_controller(site: Site, desktop: Path) -> None:
    pids = SessionState.read(desktop).pids
    for name in ("portal", "controller"):
        site.stop(name)
        site.start(name)
    site.open()
    assert Path(site.run("print(desktop.path)")) == desktop
    assert SessionState.read(desktop).pids["xserver"] == pids["xserver"]
    ticket, path = site.ticket()
    with site.socket(path, ticket) as connection:
        shake_hands(connection)
    with site.client("owner") as owner:
        assert owner.post("stop/").status_code == 200
        until(lambda: owner.get("state/").json()["state"] == "stopped")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
