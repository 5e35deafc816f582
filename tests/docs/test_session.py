"""docs/api.md done in its order, on a service behind the proxy of docs/how-to/operate.md."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pages import blocks, command_lines
from test_pages import nginx_conf

from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.testing.service import running_service

PAGE = "docs/api.md"
SERVER, PERSON, DATA = (
    "https://scipion.example.org",
    "ada@example.org",
    "/data/day1",
)  # as the page calls them
PASSWORD = "correct horse battery"
MOVIES = 2


class Reader:
    """Somebody who types what the page says, with an address, files and a password of their own."""

    def __init__(self, folder: Path, server: str, data: Path) -> None:
        self.folder, self.server, self.data = folder, server, data
        self.env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(folder / "config"),
            "SSL_CERT_FILE": str(folder / "cert"),
            "CURL_CA_BUNDLE": str(folder / "cert"),
            "COLUMNS": "200",
        }

    def own(self, text: str) -> str:
        text = text.replace(SERVER, self.server).replace(DATA, str(self.data))
        return text.replace('"password": "..."', f'"password": "{PASSWORD}"')

    def run(self, command: list[str], stdin: str = "") -> str:
        """What it prints; without a terminal, so that a password is read from standard input."""
        done = subprocess.run(
            command,
            env=self.env,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
            timeout=200,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def proxy(folder: Path, port: int, upstream: str) -> Iterator[None]:
    """The proxy of docs/how-to/operate.md, on this port and before this service."""
    (text,) = (b.text for b in blocks() if b.kind == "nginx")
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl").replace(
        "cryoem.example.org", "localhost"
    )
    conf = nginx_conf(text.replace("http://127.0.0.1:8080", upstream), folder)
    user = "user root;\n" if os.geteuid() == 0 else ""  # else its workers could not read the folder
    conf.write_text(user + conf.read_text())
    nginx = subprocess.Popen(["/usr/sbin/nginx", "-e", folder / "error.log", "-c", conf])
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert nginx.poll() is None, (folder / "error.log").read_text()
                assert time.monotonic() < deadline, "nginx does not listen"
                time.sleep(0.05)
        yield
    finally:
        nginx.terminate()
        nginx.wait(10)


@pytest.mark.scipion
@pytest.mark.desktop
def test_the_session_of_the_page(home: Path, software: Path, tmp_path: Path, free_port: int) -> None:
    data = tmp_path / "day1"
    write_movies(data, MOVIES, MovieSpec(size=256, frames=6, pixel_size=0.885, gain=False))
    url = f"https://localhost:{free_port}"
    with running_service(home, env={"SCIPION_CLOUD_PUBLIC_URL": url}) as service:
        reader = Reader(tmp_path, url, data)
        make = "from scipion_cloud.records.models import User; "
        make += f"User.objects.create_user('ada', '{PERSON}', '{PASSWORD}')"
        reader.run(["scipion-cloud", "manage", "shell", "-v0", "-c", make])
        with proxy(tmp_path, free_port, service.url):
            follow(reader)
    assert "micrograph" in (tmp_path / "micrographs.star").read_text()
    results = {file.name for file in (tmp_path / "results").iterdir()}
    assert "corrected_micrographs.star" in results
    assert sum(name.endswith(".mrc") for name in results) == MOVIES


def follow(reader: Reader) -> None:
    """Do what the page says; each of its kinds of blocks gives what the next needs."""
    done = []
    for block in (b for b in blocks() if b.page == PAGE and b.kind != "json"):
        text = reader.own(block.text)
        if block.kind == "bash":
            reader.env["TOKEN"] = json.loads(reader.run(["bash", "-ec", text]))["token"]
        elif block.kind == "console":
            for line in map(reader.own, command_lines(block)):
                said = reader.run(["bash", "-ec", line], PASSWORD + "\n" if " login " in line else "")
                print(f"{line}\n{said}")
                done.append(" ".join(line.split()[1:3]))
            assert f"{reader.server}/projects/" in said  # the desktop's address
        else:
            assert block.kind == "python"
            assert "moved by" in reader.run([sys.executable, "-c", text])
        done.append(block.kind)
    assert {"bash", "console", "python", "run start", "run outputs", "desktop open"} <= set(done)
