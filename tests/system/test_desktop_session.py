"""A session by itself: real Xtigervnc, real window manager and panel, a terminal in the place of Scipion."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from scipion_cloud.desktops.settings import DesktopSettings, Phase, SessionState

pytestmark = pytest.mark.desktop

# a title bar like Scipion's: the first window of a Tk application whose root is hidden
WINDOW = "import tkinter as tk; r = tk.Tk(); r.withdraw(); tk.Toplevel(class_='demo'); r.mainloop()"


class Running:
    """A started session and what it has told."""

    def __init__(self, folder: Path, project: Path, command: list[str]) -> None:
        self.folder = folder
        environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        DesktopSettings(str(project), "A 'title'", command, environ).write(folder)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scipion_cloud.desktops.session", str(folder)], start_new_session=True
        )

    @property
    def state(self) -> SessionState:
        return SessionState.read(self.folder)

    def reach(self, phase: Phase) -> SessionState:
        until(lambda: self.state.phase in (phase, Phase.ENDED))
        assert self.state.phase is phase, self.state.message
        return self.state

    def members(self) -> list[psutil.Process]:
        """Every process of the session that still runs."""
        folder = str(self.folder)
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and (
                    folder in " ".join(process.cmdline()) or process.cwd().startswith(folder)
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return [*found, *(c for p in found for c in p.children(recursive=True) if c not in found)]


def until(condition: Callable[[], bool], timeout: float = 120) -> None:
    give_up = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[list[str]], Running]]:
    running: list[Running] = []
    project = tmp_path / "a project"
    project.mkdir()

    def begin(command: list[str]) -> Running:
        running.append(Running(tmp_path / ("deep " * 25) / "desktop", project, command))
        return running[-1]

    yield begin
    for each in running:
        each.process.kill()
        each.process.wait()
        until(lambda each=each: not each.members())  # type: ignore[misc]


def gone(pids: dict[str, int]) -> bool:
    return not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids.values()
    )


def listening_tcp(processes: list[psutil.Process]) -> set[str]:
    """TCP sockets (IPv4 and IPv6, any state) that these processes hold, read from the kernel's own tables."""
    inodes = set()
    for process in processes:
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            target = str(link.readlink()) if link.is_symlink() else ""
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    lines = [
        line for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {line for line in lines if line.split()[9] in inodes}


def greet(folder: Path) -> socket.socket:
    """A connection to the VNC socket that has finished its handshake."""
    here = os.open(folder, os.O_RDONLY)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"/proc/self/fd/{here}/vnc.sock")
    os.close(here)
    assert connection.recv(12) == b"RFB 003.008\n"
    connection.sendall(b"RFB 003.008\n")
    assert connection.recv(2) == b"\x01\x01"
    connection.sendall(b"\x01")
    assert connection.recv(4) == bytes(4)
    connection.sendall(b"\x01")
    assert connection.recv(1024)
    return connection


def test_no_tcp_port_and_nothing_for_other_users(start: Callable[[list[str]], Running]) -> None:
    session = start([sys.executable, "-c", WINDOW])
    state = session.reach(Phase.SCIPION_READY)
    with greet(session.folder):
        processes = [psutil.Process(pid) for pid in state.pids.values()] + [
            psutil.Process(session.process.pid)
        ]
        assert {"xserver", "windows", "panel", "scipion"} <= state.pids.keys()
        assert listening_tcp(processes) == set()
    assert session.folder.stat().st_mode & 0o777 == 0o700
    for name in ("vnc.sock", "xauthority", "desktop.json"):
        assert (session.folder / name).stat().st_mode & 0o777 == 0o600
    # the X side wants the cookie
    environ = {"PATH": os.environ["PATH"], "DISPLAY": state.display, "XAUTHORITY": os.devnull}
    assert subprocess.run(["xprop", "-root"], env=environ, capture_output=True).returncode != 0


def test_sigterm_ends_everything(start: Callable[[list[str]], Running]) -> None:
    session = start([sys.executable, "-c", WINDOW])
    state = session.reach(Phase.SCIPION_READY)
    session.process.terminate()
    assert session.process.wait(120) == 0
    assert session.state.phase is Phase.ENDED
    assert gone(state.pids)
    assert not Path(f"/tmp/.X11-unix/X{state.display[1:]}").exists()


def test_a_killed_x_server_ends_the_session_with_a_message(start: Callable[[list[str]], Running]) -> None:
    session = start(["xterm"])
    state = session.reach(Phase.X_READY)
    os.kill(state.pids["xserver"], signal.SIGKILL)
    assert session.process.wait(120) == 1
    assert "signal 9" in session.state.message
    assert gone(state.pids)
    assert not Path(f"/tmp/.X11-unix/X{state.display[1:]}").exists()


def test_a_killed_session_takes_all_along(start: Callable[[list[str]], Running]) -> None:
    session = start([sys.executable, "-c", WINDOW])
    state = session.reach(Phase.SCIPION_READY)
    session.process.kill()
    session.process.wait()
    until(lambda: gone(state.pids))


def test_closed_scipion_is_told_and_opened_again(start: Callable[[list[str]], Running]) -> None:
    session = start([sys.executable, "-c", WINDOW])
    first = session.reach(Phase.SCIPION_READY).pids["scipion"]
    os.kill(first, signal.SIGTERM)
    session.reach(Phase.SCIPION_CLOSED)
    session.process.send_signal(signal.SIGUSR1)
    assert session.reach(Phase.SCIPION_READY).pids["scipion"] != first


def test_settings_that_cannot_be_read(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scipion_cloud.desktops.session", str(tmp_path)]
    (tmp_path / "desktop.json").write_text(json.dumps({"project": "/"}))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "open a new desktop" in done.stderr
    assert SessionState.read(tmp_path).phase is Phase.ENDED
