"""From the click on "Open desktop" to the first pixel and to Scipion's window, against the same by hand.

    python benchmarks/desktop.py [--rounds 5]

Through Scipion Cloud means: from the request that the button sends, over job, ticket and relay, to a picture
in a client on the WebSocket. By hand means: a shell script that starts Xtigervnc, a window manager, the panel
and Scipion, and a client on the VNC socket. Both in the same run, in turns.
"""

import argparse
import contextlib
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from scipion_cloud.config import Config, get_config
from scipion_cloud.desktops.session import THEME
from scipion_cloud.testing.service import RunningService, running_service
from scipion_cloud.tools.environment import scipion_environ

_GEOMETRY = "1280x800"
_BY_HAND = """
trap 'kill $(jobs -p)' EXIT
Xtigervnc -displayfd 3 -geometry {geometry} -depth 24 -nolisten tcp -rfbunixpath vnc.sock -rfbport -1 \\
    -SecurityTypes None 3> display 2> /dev/null &
until [ -s display ]; do sleep 0.01; done
export DISPLAY=:$(cat display)
hsetroot -solid '#17202a'
openbox --config-file {theme}/openbox/rc.xml &
tint2 -c {theme}/tint2rc > /dev/null 2>&1 &
{python} -O -m scipion project {project} > /dev/null 2>&1 &
wait -n
"""


@dataclass(frozen=True)
class Timing:
    """Seconds until something is seen, and until Scipion's bright window fills the screen."""

    pixel: float
    window: float


class Screen:
    """A minimal RFB client: asks for whole pictures without compression and looks at them."""

    def __init__(self, send: Callable[[bytes], None], receive: Callable[[], bytes]) -> None:
        self._send, self._receive, self._rest = send, receive, b""
        self._read(12)
        send(b"RFB 003.008\n")
        self._read(2)
        send(b"\x01")
        self._read(4)
        send(b"\x01")
        start = self._read(24)
        self.width, self.height = (int.from_bytes(start[i : i + 2], "big") for i in (0, 2))
        self._read(int.from_bytes(start[20:24], "big"))
        send(b"\x02\x00\x00\x01" + bytes(4))  # raw pictures only

    def picture(self) -> bytes:
        """All pixels as they are now, 4 bytes each."""
        self._send(b"\x03\x00" + bytes(4) + self.width.to_bytes(2, "big") + self.height.to_bytes(2, "big"))
        while (kind := self._read(1)[0]) != 0:
            self._skip(kind)
        pixels = b""
        for _ in range(int.from_bytes(self._read(3)[1:], "big")):
            place = self._read(12)
            width, height = (int.from_bytes(place[i : i + 2], "big") for i in (4, 6))
            pixels += self._read(width * height * 4)
        return pixels

    def _skip(self, kind: int) -> None:
        if kind == 3:  # cut text
            self._read(int.from_bytes(self._read(7)[3:], "big"))
        elif kind != 2:  # a bell has no more bytes
            raise RuntimeError(f"unexpected message {kind} from the VNC server")

    def _read(self, count: int) -> bytes:
        parts, have = [self._rest], len(self._rest)
        while have < count:
            if not (data := self._receive()):
                raise ConnectionError("the VNC server closed the connection")
            parts.append(data)
            have += len(parts[-1])
        data = b"".join(parts)
        self._rest = data[count:]
        return data[:count]


def watch(screen: Screen, begun: float) -> Timing:
    """Look until Scipion's window is there."""
    pixel = 0.0
    while True:
        picture = screen.picture()
        now = time.monotonic() - begun
        if not pixel and any(picture):
            pixel = now
        if picture.count(b"\xff\xff\xff") > screen.width * screen.height / 3:
            return Timing(pixel, now)
        time.sleep(0.02)


def through(service: RunningService, http: httpx.Client, project: str) -> Timing:
    """Click, and watch through the relay."""
    headers = {"X-CSRFToken": http.cookies["csrftoken"], "Referer": service.url, "Origin": service.url}
    page = f"/projects/{project}/desktop/"
    begun = time.monotonic()
    http.post(f"{page}open/", headers=headers)
    while (answer := http.post(f"{page}ticket/", headers=headers)).status_code == 409:
        http.get(f"{page}state/")
        time.sleep(0.02)
    given = answer.raise_for_status().json()
    address = service.url.replace("http", "ws", 1) + given["path"]
    cookies = "; ".join(f"{name}={value}" for name, value in http.cookies.items())
    protocols = ["binary", f"scipion-cloud.ticket.{given['ticket']}"]
    try:
        with connect(
            address,
            subprotocols=protocols,
            additional_headers={"Cookie": cookies},
            origin=service.url,
            max_size=None,
            compression=None,
        ) as relay:
            timing = watch(Screen(relay.send, relay.recv), begun)
    except WebSocketException as e:
        raise RuntimeError(f"the relay closed the connection: {e}") from e
    http.post(f"{page}stop/", headers=headers).raise_for_status()
    while http.get(f"{page}state/").json()["state"] not in ("stopped", "failed"):
        time.sleep(0.1)
    return timing


def by_hand(config: Config, project: Path) -> Timing:
    """The same programs from a shell script, watched at the VNC socket."""
    with tempfile.TemporaryDirectory() as folder:
        script = _BY_HAND.format(
            geometry=_GEOMETRY, theme=THEME, python=config.scipion_python, project=project.name
        )
        begun = time.monotonic()
        environ = scipion_environ(config, config.projects)
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with socket.socket(socket.AF_UNIX) as client:
                while client.connect_ex(f"{folder}/vnc.sock"):
                    time.sleep(0.01)
                return watch(Screen(client.sendall, lambda: client.recv(1 << 20)), begun)
        finally:
            shell.terminate()
            shell.wait()


def sign_in(service: RunningService) -> httpx.Client:
    """A browser's session by the one sign-in link."""
    http = httpx.Client(base_url=service.url, timeout=60)
    page = http.get(service.link).text
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert found, "the sign-in page has no form"  # noqa: S101 - a benchmark may stop
    http.post(service.link, data={"csrfmiddlewaretoken": found[1]}, headers={"Referer": service.link})
    return http


def main(argv: Sequence[str] | None = None) -> float:
    """Print both times and their ratios; returns the ratio of the first pixels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args(argv).rounds
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with running_service(home) as service, contextlib.closing(sign_in(service)) as http:
            token = {"X-CSRFToken": http.cookies["csrftoken"], "Referer": service.url}
            made = (
                http.post("/api/v1/projects", json={"name": "Bench"}, headers=token).raise_for_status().json()
            )
            config = get_config().model_copy(update={"home": home})
            path = next(config.projects.iterdir())
            for _ in range(rounds + 1):  # the first one warms the disk cache for both
                ours.append(through(service, http, made["id"]))
                theirs.append(by_hand(config, path))
    ratios = []
    for what in ("pixel", "window"):
        us, them = (median(getattr(t, what) for t in timings[1:]) for timings in (ours, theirs))
        name = {"pixel": "first pixel", "window": "Scipion's window"}[what]
        print(f"{name}: {us:.2f} s from the click, {them:.2f} s by hand, ratio {us / them:.2f}")
        ratios.append(us / them)
    return ratios[0]


if __name__ == "__main__":
    main()
