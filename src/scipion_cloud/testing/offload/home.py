"""The home that the loop works on: its database, a portal, a controller, and a project kept in a storage."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.config import ENV_PREFIX, Config
from scipion_cloud.deployments.status import STATUS_FILE
from scipion_cloud.testing.servers.daemon import daemon, free_port

PATIENCE = 1800.0  # s for one command; an agent that was killed often is started again after five minutes
_SAVED_EVERY = 5  # s between two saves of the open project
_CONNECTION = "Shelf"  # what the portal calls the storage
_FOLDER = "project"  # in it


@dataclass(frozen=True)
class Home:
    """A home whose portal runs, and what a person can do there. Whatever fails raises CalledProcessError."""

    config: Config
    env: Mapping[str, str]  # of all its processes
    storage: str  # URL
    credentials: Path  # for the storage

    @property
    def project(self) -> Path:
        """The working copy of its only project, while it is open."""
        (found,) = (path for path in self.config.projects.iterdir() if not path.name.startswith("."))
        return found

    def controller(self, log: Path) -> subprocess.Popen[bytes]:
        """Start the controller, as `up` does."""
        with log.open("ab") as output:
            words = [sys.executable, "-m", "scipion_cloud.controller"]
            return subprocess.Popen(words, env=self.env, stdout=output, stderr=output, start_new_session=True)

    def open_project(self, content: Path) -> None:
        """Have the storage keep this folder as a project, and open it; a controller has to run."""
        self._data("save", "--from", str(content))
        self._cli("storage", "connect", _CONNECTION, self.storage, "--credentials", str(self.credentials))
        self._cli("project", "create", "Soak", "--storage", f"{_CONNECTION}:{_FOLDER}", "--existing")
        self._cli("project", "open", "Soak")
        (status,) = self.config.agents.glob(f"*/{STATUS_FILE}")
        while json.loads(status.read_bytes())["arriving"]:
            time.sleep(0.1)

    def close_project(self, copy: Path) -> None:
        """Close it, check all that the storage holds of it, and make a copy of that."""
        self._cli("project", "close", "Soak")
        self._data("verify")
        self._data("restore", "--to", str(copy))

    def run(self, module: str, *words: str) -> str:
        """Run one of our modules in this home; what it prints."""
        command = [sys.executable, "-m", module, *words]
        done = subprocess.run(
            command, env=self.env, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True
        )
        return done.stdout

    def _cli(self, *words: str) -> str:
        return self.run("scipion_cloud.cli", *words, "--json")

    def _data(self, what: str, *words: str) -> str:
        place = ("--storage", f"{self.storage}/{_FOLDER}", "--credentials", str(self.credentials))
        return self._cli("data", what, *place, *words)


@contextmanager
def running_home(config: Config, storage: str, credentials: Mapping[str, str]) -> Iterator[Home]:
    """A new home with a portal, until the end of the block."""
    port = free_port()
    settings = {"HOME": str(config.home), "PORT": str(port), "AUTOSAVE_SECONDS": str(_SAVED_EVERY)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "credentials.json")
        file.touch(mode=0o600)
        file.write_text(json.dumps(dict(credentials)))
        environ = {
            **os.environ,
            **{f"{ENV_PREFIX}{name}": value for name, value in settings.items()},
            "DJANGO_SETTINGS_MODULE": "scipion_cloud.portal.settings",
            "XDG_CONFIG_HOME": folder,
        }
        home = Home(config, environ, storage, file)
        home.run("scipion_cloud.cli.prepare")
        words = ["-m", "uvicorn", "scipion_cloud.portal.asgi:application", f"--port={port}"]
        with daemon([sys.executable, *words], config.home / "portal.log", port=port, env=environ):
            home.run("scipion_cloud.cli", "login", "--link", home.run("django", "admin_link").split()[-1])
            yield home
