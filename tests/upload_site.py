"""A small site for the upload tests: a home of its own, three people, one project, and a real server process.

Run as a program, this file is that server: `upload_site.py serve PORT [LARGEST_FILE]`, after `prepare`.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

PEOPLE = {"owner": None, "viewer": "viewer", "stranger": None}


@dataclass
class Site:
    """The site and its server process, which can be killed and started again on the same port."""

    home: Path
    project: str
    data: Path
    tokens: dict[str, str]  # person -> API token
    sessions: dict[str, str]  # person -> session cookie
    port: int
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def prepare(cls, home: Path) -> "Site":
        """Make the home and what is in it."""
        done = subprocess.run(
            [sys.executable, __file__, "prepare"], env=_environment(home), check=True, capture_output=True
        )
        facts = json.loads(done.stdout)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return cls(home, facts["project"], Path(facts["data"]), facts["tokens"], facts["sessions"], port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def tus(self) -> str:
        return f"{self.url}/projects/{self.project}/tus"

    def headers(self, person: str = "owner") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[person]}", "Tus-Resumable": "1.0.0"}

    def client(self, person: str = "owner") -> httpx.Client:
        return httpx.Client(headers=self.headers(person), timeout=30)

    def start(self, largest_file: int | None = None) -> None:
        limit = [str(largest_file)] if largest_file else []
        command = [sys.executable, __file__, "serve", str(self.port), *limit]
        self.process = subprocess.Popen(command, env=_environment(self.home))
        for _ in range(1200):
            try:
                httpx.options(self.tus)
                return
            except httpx.TransportError:
                assert self.process.poll() is None, "the server has ended"
                time.sleep(0.1)
        raise TimeoutError("the server does not answer")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(how)
            self.process.wait(120)
            self.process = None

    def parts(self) -> dict[str, int]:
        """Part files and their sizes."""
        sizes = {}
        for part in (self.data / ".parts").glob("*"):
            with suppress(FileNotFoundError):  # it has got its name meanwhile
                sizes[part.name] = part.stat().st_size
        return sizes

    def in_django(self, code: str) -> str:
        """What `code` prints when it runs beside the server; `project` and `user` are at hand."""
        done = subprocess.run(
            [sys.executable, __file__, "run", code],
            env=_environment(self.home),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def _environment(home: Path) -> dict[str, str]:
    return os.environ | {
        "SCIPION_CLOUD_HOME": str(home),
        "DJANGO_SETTINGS_MODULE": "scipion_cloud.portal.settings",
        "PYTHONWARNINGS": "default",
    }


def _prepare() -> dict[str, object]:
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    call_command("createcachetable", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)

    from scipion_cloud.records.models import ApiToken, Membership, Project, User

    tokens, sessions, people = {}, {}, {}
    for name in PEOPLE:
        user = people[name] = User.objects.create_user(name, f"{name}@example.org", "a-Long-password-1")
        tokens[name] = ApiToken.issue(user, "test")
        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.save()
        sessions[name] = session.session_key
    project = Project.objects.create(name="Ribosomes", owner=people["owner"])
    project.data.mkdir(parents=True)
    Membership.objects.create(project=project, user=people["viewer"], role="viewer")
    return {"project": str(project.pk), "data": str(project.data), "tokens": tokens, "sessions": sessions}


def _serve(port: int, largest_file: int | None) -> None:
    import uvicorn

    from scipion_cloud.portal.asgi import application

    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    uvicorn.run(application, port=port, log_level="warning")


def _run(code: str) -> None:
    from scipion_cloud.records.models import Project

    project = Project.objects.get()
    exec(code, {"project": project, "user": project.owner})  # noqa: S102 - the tests' own code


if __name__ == "__main__":
    import django

    django.setup()
    if sys.argv[1] == "prepare":
        print(json.dumps(_prepare()))
    elif sys.argv[1] == "run":
        _run(sys.argv[2])
    else:
        _serve(int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
