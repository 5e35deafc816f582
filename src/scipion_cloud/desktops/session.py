"""The body of a desktop's job: `python -m scipion_cloud.desktops.session FOLDER`.

Reads FOLDER/desktop.json, starts the X server, a window manager, a panel and Scipion, tells how it goes in
FOLDER/state.json, and ends with the X server or at SIGTERM. SIGUSR1 (from the panel) opens Scipion again.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from pathlib import Path

from scipion_cloud.desktops import windows, xserver
from scipion_cloud.desktops.processes import end, ends_with_us
from scipion_cloud.desktops.settings import DesktopSettings, Phase, SessionState
from scipion_cloud.errors import ScipionCloudError

THEME = Path(__file__).parent / "theme"
BACKGROUND = "#17202a"


class Session:
    """One X session. `run` returns the job's exit code."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._settings = DesktopSettings.read(folder)
        self._processes: dict[str, Process] = {}
        self._phase = Phase.STARTING
        self._display = ""
        self._environ: dict[str, str] = {}
        self._stopped = asyncio.Event()
        self._reopen = asyncio.Event()

    async def run(self) -> int:
        """Start everything and stay until the X server ends (1) or a signal asks us to stop (0)."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen.set)
        self._tell(Phase.STARTING)
        server, self._display = await xserver.start(
            self._folder, self._settings.title, self._settings.geometry
        )
        self._processes["xserver"] = server
        self._environ = self._session_environ()
        lives = [
            asyncio.create_task(server.wait()),
            asyncio.create_task(self._stopped.wait()),
            asyncio.create_task(self._scipion()),
        ]
        try:
            await self._furnish()
            self._tell(Phase.X_READY)
            await asyncio.wait(lives, return_when=asyncio.FIRST_COMPLETED)
            return await self._farewell(server)
        finally:
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)
            # clients first, so that they are not cut off; the X server last
            for process in reversed(self._processes.values()):
                await end(process)
            xserver.remove_traces(self._display)

    async def _farewell(self, server: Process) -> int:
        if self._stopped.is_set():
            self._tell(Phase.ENDED, "Stopped.")
            return 0
        code = await server.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        message = f"The desktop's X server {how}. Your project is untouched; open a new desktop."
        self._tell(Phase.ENDED, message)
        print(message, flush=True)
        return 1

    async def _furnish(self) -> None:
        """Background, window manager and panel; none of them needs to be waited for."""
        await self._start("background", "hsetroot", "-solid", BACKGROUND)
        await self._start(
            "windows", "openbox", "--config-file", str(THEME / "openbox" / "rc.xml"), "--sm-disable"
        )
        await self._start("panel", "tint2", "-c", str(THEME / "tint2rc"))

    async def _scipion(self) -> None:
        """Run Scipion, and again whenever its user asks for it after having closed it."""
        while True:
            self._reopen.clear()
            scipion = await self._start("scipion", *self._settings.command)
            shown = asyncio.create_task(self._tell_when_shown())
            try:
                code = await scipion.wait()
            finally:
                shown.cancel()
                await asyncio.gather(shown, return_exceptions=True)
            print(f"Scipion ended with exit code {code}.", flush=True)
            self._tell(Phase.SCIPION_CLOSED, "" if code == 0 else "Scipion ended unexpectedly; see its log.")
            await self._reopen.wait()
            self._tell(Phase.X_READY)

    async def _tell_when_shown(self) -> None:
        await windows.scipion_appears(self._environ)
        self._tell(Phase.SCIPION_READY)

    async def _start(self, name: str, *command: str) -> Process:
        with (self._folder / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self._settings.project,
                env=self._environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=ends_with_us,
            )
        self._processes[name] = process
        return process

    def _session_environ(self) -> dict[str, str]:
        """Scipion's variables and the session's. HOME is the desktop's own: no setting leaks to others."""
        home = self._folder / "home"
        home.mkdir(mode=0o700, exist_ok=True)
        return self._settings.environ | {
            "DISPLAY": self._display,
            "XAUTHORITY": str(self._folder / "xauthority"),
            "HOME": str(home),
            "XDG_DATA_DIRS": f"{THEME / 'share'}:/usr/local/share:/usr/share",
            "XDG_CONFIG_DIRS": f"{THEME}:/etc/xdg",
            "XENVIRONMENT": str(THEME / "Xresources"),
            "SCIPION_CLOUD_SESSION": str(os.getpid()),
        }

    def _tell(self, phase: Phase, message: str = "") -> None:
        pids = {name: process.pid for name, process in self._processes.items() if process.returncode is None}
        SessionState(phase, self._display, pids, message).write(self._folder)


async def _main(folder: Path) -> int:
    try:
        return await Session(folder).run()
    except ScipionCloudError as e:
        SessionState(Phase.ENDED, message=str(e)).write(folder)
        print(e, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(Path(sys.argv[1]).resolve())))
