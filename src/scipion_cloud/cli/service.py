"""The running service: portal, controller and Slurm under a supervisor, and the work that they leave."""

import http.client
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scipion_cloud.cli.engine import Engine
from scipion_cloud.cli.progress import seconds
from scipion_cloud.config import ENV_PREFIX, Config
from scipion_cloud.errors import SetupError
from scipion_cloud.jobs import JobBackend, backend_for
from scipion_cloud.jobs.away import Away
from scipion_cloud.provision import home
from scipion_cloud.provision.ports import listen
from scipion_cloud.provision.process import Report, stream
from scipion_cloud.provision.supervisor import ChildSpec, Notice, Supervisor, end_leftovers

SAVES = 60.0  # seconds; a job that asks for more time than this to end has data to save
SETTINGS = "scipion_cloud.portal.settings"


class Service:
    """Portal and controller of one home, or the `children` given instead, and what the `engine` needs.

    Raises what `Engine.prepare` does. Call `stop` whatever happens.
    """

    def __init__(
        self,
        config: Config,
        notice: Notice,
        children: Sequence[ChildSpec] | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.config = config
        self._notice = notice
        self._began = time.monotonic()
        self._state = config.home / "up.children"
        self._marker = f"{ENV_PREFIX}HOME={config.home}"
        if killed := end_leftovers(self._state, self._marker):
            notice(f"ended {killed} processes that an earlier start had left")
        self._listener = listen(config.host, config.port)
        os.environ.update(self.environ)
        self._engine = engine or Engine.of(config, slurm=False)
        self._engine.prepare(config)
        children = [self._portal(), self._controller()] if children is None else children
        self._above = [child.name for child in children]
        children = [*self._engine.children(config), *children]
        self.supervisor = Supervisor(children, self._state, self._marker, notice)

    @property
    def environ(self) -> dict[str, str]:
        """Variables by which every process of ours finds this home."""
        return {
            f"{ENV_PREFIX}HOME": str(self.config.home),
            f"{ENV_PREFIX}SOFTWARE": str(self.config.software),
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def slurm(self) -> bool:
        """True if a Slurm of ours belongs to it."""
        return self._engine.slurm is not None

    def start(self) -> None:
        """Start all and wait until the portal answers. Raises SetupError with the end of a log."""
        self.supervisor.start()

    def manage(self, *command: str, report: Report = lambda _: None) -> str:
        """Run one of the portal's management commands and return its last line. Raises SetupError."""
        words = [sys.executable, "-m", "django", *command]
        return stream(words, report, what=f"The command {command[0]}").rpartition("\n")[2]

    def describe(self) -> str:
        """One calm line about how things are."""
        parts = [f"{'●' if pid else '○'} {name}" for name, pid in self.supervisor.pids().items()]
        return "  ".join([*parts, self.config.url, f"up {seconds(time.monotonic() - self._began)}"])

    def stop(self, report: Report, *, end_work: bool) -> None:
        """Stop portal and controller; with `end_work` cancel all jobs, desktops among them; stop Slurm."""
        report("portal and controller")
        self.supervisor.stop(self._above)
        self._listener.close()
        try:
            if end_work:
                self._end_work(backend_for(self.config), report)
        finally:
            report("Slurm" if self.slurm else "the rest")
            self.supervisor.close()
            self._engine.clear(jobs=end_work)

    def _end_work(self, backend: JobBackend, report: Report) -> None:
        """Cancel everything here; those that save data come last, when nothing writes any more."""
        away = {job.id for job in Away(self.config.jobs).live()}
        if away:
            self._notice(
                f"{len(away)} jobs at other sites go on, and are fetched when Scipion Cloud is up again"
            )
        live = [job for job in backend.list(limit=0) if job.id not in away]
        savers = [job.id for job in live if job.grace >= SAVES]
        others = [job.id for job in live if job.grace < SAVES]
        if others:
            report(f"{len(others)} jobs")
            backend.cancel(others)
            self._notice(f"cancelled {len(others)} jobs")
        if savers:
            report(f"saving {len(savers)} open projects to their storages")
            backend.cancel(savers)
            self._notice(f"saved and closed {len(savers)} open projects")

    def _portal(self) -> ChildSpec:
        options = ["--no-access-log", "--no-server-header", "--timeout-graceful-shutdown=3"]
        options.append("--ws-per-message-deflate=false")  # a desktop's pictures are compressed already
        # only a proxy on this machine may say who the client was, and only where one is configured
        options.append("--proxy-headers" if self.config.public_url else "--no-proxy-headers")
        application = "scipion_cloud.portal.asgi:application"
        return ChildSpec(
            "portal",
            [sys.executable, "-m", "uvicorn", application, f"--fd={self._listener.fileno()}", *options],
            self._log("portal"),
            pass_fds=(self._listener.fileno(),),
            ready=self._answers,
        )

    def _controller(self) -> ChildSpec:
        return ChildSpec(
            "controller", [sys.executable, "-m", "scipion_cloud.controller"], self._log("controller")
        )

    def _log(self, name: str) -> Path:
        return home.logs(self.config) / f"{name}.log"

    def _answers(self) -> bool:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.config.host, self.config.host)  # noqa: S104
        connection = http.client.HTTPConnection(host, self.config.port, timeout=1)
        try:
            connection.request("GET", "/healthz", headers={"Host": "localhost"})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        if status >= 500:
            raise SetupError(f"The portal answers with an error. {self._log('portal')} tells which.")
        return status == 200
