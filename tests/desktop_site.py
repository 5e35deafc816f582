"""A site for the desktop tests: real portal and controller on a home of their own, three people, a project.

Run as a program, this file is its parts: `desktop_site.py prepare|portal PORT|controller|run CODE`.
"""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from websockets.sync.client import ClientConnection, connect

PEOPLE = ("owner", "viewer", "stranger")


@dataclass
class Site:
    """The site and its processes."""

    home: Path
    software: Path
    port: int = 0
    project: str = ""
    folder: str = ""
    sessions: dict[str, str] = field(default_factory=dict)  # person -> session cookie
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def prepare(self, *, scipion: bool) -> None:
        """Make the home and what is in it, with a real Scipion project if `scipion`."""
        facts = json.loads(self._here("prepare", "scipion" if scipion else "no").splitlines()[-1])
        self.project, self.folder, self.sessions = facts["project"], facts["folder"], facts["sessions"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def start(self, name: str) -> None:
        """Start the `portal` or the `controller`."""
        arguments = [str(self.port)] if name == "portal" else []
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, __file__, name, *arguments], env=self._environ, stdout=log, stderr=log
            )
        if name == "portal":
            until(lambda: self._answers(), 120)

    def stop(self, name: str) -> None:
        """Kill one of them."""
        if process := self.processes.pop(name, None):
            process.kill()
            process.wait()

    def end(self) -> None:
        """Kill both and cancel all jobs."""
        for name in tuple(self.processes):
            self.stop(name)
        self.run(
            "from scipion_cloud.jobs import backend_for; b = backend_for(config);"
            "b.cancel([job.id for job in b.list(0)])"
        )

    def run(self, code: str) -> str:
        """What `code` prints; `project`, `people`, `desktop` (the last) and `config` are at hand."""
        return self._here("run", code)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def page(self) -> str:
        return f"{self.url}/projects/{self.project}/desktop/"

    def client(self, person: str) -> httpx.Client:
        """A browser of that person's, as far as HTTP goes."""
        cookies = {"sessionid": self.sessions[person], "csrftoken": "x" * 32}
        headers = {"X-CSRFToken": "x" * 32, "Accept": "application/json"}
        return httpx.Client(base_url=self.page, cookies=cookies, headers=headers, timeout=30)

    def open(self, person: str = "owner") -> None:
        """Open the desktop and wait until it is ready."""
        with self.client(person) as client:
            assert client.post("open/").status_code == 302
            until(lambda: client.get("state/").json()["state"] == "ready", 40)

    def ticket(self, person: str = "owner") -> tuple[str, str]:
        """A ticket and the socket's path."""
        with self.client(person) as client:
            answer = client.post("ticket/").json()
        return answer["ticket"], answer["path"]

    def socket(
        self, path: str, ticket: str, person: str | None = "owner", origin: str | None = None
    ) -> ClientConnection:
        """Connect as a browser does."""
        headers = {"Cookie": f"sessionid={self.sessions[person]}"} if person else {}
        return connect(
            f"ws://127.0.0.1:{self.port}{path}",
            origin=origin or self.url,
            subprotocols=["binary", f"scipion-cloud.ticket.{ticket}"],
            additional_headers=headers,
        )

    def _answers(self) -> bool:
        assert self.processes["portal"].poll() is None, (self.home / "portal.log").read_text()
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/healthz").status_code == 200
        return False

    def _here(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, __file__, *arguments], env=self._environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def _environ(self) -> dict[str, str]:
        return os.environ | {
            "SCIPION_CLOUD_HOME": str(self.home),
            "SCIPION_CLOUD_SOFTWARE": str(self.software),
            "SCIPION_CLOUD_PORT": str(self.port or 1),
            "DJANGO_SETTINGS_MODULE": "scipion_cloud.portal.settings",
        }


def until(condition: "object", timeout: float = 120) -> None:
    """Wait for it."""
    give_up = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.05)


def shake_hands(connection: ClientConnection) -> None:
    """The RFB handshake; afterwards messages can be sent."""
    got = b""

    def wait_for(count: int) -> bytes:
        nonlocal got
        while len(got) < count:
            got += connection.recv(10)  # type: ignore[operator]
        part, got = got[:count], got[count:]
        return part

    assert wait_for(12) == b"RFB 003.008\n"
    connection.send(b"RFB 003.008\n")
    assert wait_for(2) == b"\x01\x01"
    connection.send(b"\x01")
    assert wait_for(4) == bytes(4)
    connection.send(b"\x00")
    wait_for(24)


def _prepare(scipion: bool) -> None:
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.management import call_command

    if not any((Path(_records()) / "migrations").glob("0*.py")):
        settings.MIGRATION_MODULES = {"records": None}  # the tables as the models have them
    call_command("migrate", run_syncdb=True, verbosity=0)
    call_command("createcachetable", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)

    from scipion_cloud.records.models import Membership, Project, User
    from scipion_cloud.tools import bridge

    sessions, people = {}, {}
    for name in PEOPLE:
        user = people[name] = User.objects.create_user(name, f"{name}@example.org", "a-Long-password-1")
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.save()
        sessions[name] = session.session_key
    project = Project.objects.create(name="Ribosomes in ice", owner=people["owner"])
    Membership.objects.create(project=project, user=people["viewer"], role="viewer")
    if scipion:
        bridge.call("create_project", project.path)
    else:
        project.path.mkdir(parents=True)
    print(json.dumps({"project": str(project.pk), "folder": str(project.path), "sessions": sessions}))


def _records() -> str:
    import scipion_cloud.records

    return str(Path(scipion_cloud.records.__file__).parent)


def _portal(port: int) -> None:
    import uvicorn

    uvicorn.run("scipion_cloud.portal.asgi:application", port=port, log_level="info")


def _controller() -> None:
    from scipion_cloud.controller.desktops import reconcile_desktops

    while True:
        reconcile_desktops()
        time.sleep(0.5)


def _run(code: str) -> None:
    from scipion_cloud.config import get_config
    from scipion_cloud.records.models import Desktop, Project, User

    people = {user.username: user for user in User.objects.all()}
    project, desktop = Project.objects.get(), Desktop.objects.first()
    exec(code, {"project": project, "people": people, "desktop": desktop, "config": get_config()})  # noqa: S102 - the tests' own code


if __name__ == "__main__":
    import django

    django.setup()
    match sys.argv[1:]:
        case ["prepare", what]:
            _prepare(what == "scipion")
        case ["portal", port]:
            _portal(int(port))
        case ["controller"]:
            _controller()
        case ["run", code]:
            _run(code)
