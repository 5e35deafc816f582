"""One large file by tus into the portal, against `curl -T` into nginx's WebDAV.

    python benchmarks/uploads.py [--size 1024] [--rounds 5] [--folder FOLDER]

The same curl sends the same file to the same disk, in turn; a file counts as sent when curl has its answer.
The portal answers when the file is safe on the disk (fsync), nginx when the kernel has it; what nginx would
take to be as safe is measured beside it. Prints the ratio of the medians of the throughputs.
"""

# ruff: noqa: PLC0415 - what needs Django is imported when the home is there

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from scipion_cloud.config import get_config
from scipion_cloud.testing.servers.daemon import free_port

if TYPE_CHECKING:
    from scipion_cloud.records.models import Project

_MIB = 2**20
_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log; {user}
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/body; client_max_body_size 0;
    proxy_temp_path {folder}/t1; fastcgi_temp_path {folder}/t2;
    uwsgi_temp_path {folder}/t3; scgi_temp_path {folder}/t4;
    server {{ listen 127.0.0.1:{port}; root {folder}/dav; location / {{ dav_methods PUT; }} }}
}}
"""


def main(argv: Sequence[str] | None = None) -> float:
    """Run the benchmark and return the ratio."""
    parser = argparse.ArgumentParser(description="Upload throughput against nginx's WebDAV.")
    parser.add_argument("--size", type=int, default=1024, help="MiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the two write; else the system's place for temporary files")
    given = parser.parse_args(argv)
    ours, nginx, safe = [], [], []
    with tempfile.TemporaryDirectory(prefix="scb-", dir=given.folder) as name:
        folder = Path(name)
        source = _source(folder, given.size)
        with _portal(folder / "home") as portal, _nginx(folder / "nginx") as dav:
            for number in range(given.rounds):
                for way in ("portal", "nginx")[:: 1 if number % 2 == 0 else -1]:
                    os.sync()  # what the one has written is no burden for the other
                    if way == "portal":
                        ours.append(portal.send(source, f"movie-{number}.tif"))
                    else:
                        plain, synced = dav.send(source, f"movie-{number}.tif")
                        nginx.append(plain)
                        safe.append(synced)
    for what, seconds in (("portal", ours), ("nginx", nginx), ("nginx and fsync", safe)):
        print(
            f"{what:18}{given.size / median(seconds):7.0f} MiB/s   {' '.join(f'{s:.2f}' for s in seconds)} s"
        )
    ratio = median(nginx) / median(ours)
    print(f"{'ratio':18}{ratio:7.2f}   (as safe: {median(safe) / median(ours):.2f})")
    return ratio


@dataclass
class _Portal:
    """Our side: a project that takes uploads."""

    url: str
    project: "Project"
    token: str

    def send(self, source: Path, name: str) -> float:
        from scipion_cloud.portal.uploads.plan import announce_one

        upload = announce_one(self.project, self.project.owner, name, source.stat().st_size)
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": "0",
            "Content-Type": "application/offset+octet-stream",
        }
        took = _curl(source, f"{self.url}/projects/{self.project.pk}/tus/{upload.pk}", "PATCH", headers)
        _check(self.project.data / name, source)
        return took


@dataclass
class _Dav:
    """The other side: a folder behind nginx."""

    url: str
    folder: Path

    def send(self, source: Path, name: str) -> tuple[float, float]:
        """Seconds until the answer, and until the file is safe."""
        took = _curl(source, f"{self.url}/{name}", "PUT", {})
        began = time.monotonic()
        with (self.folder / name).open("rb") as file:
            os.fsync(file.fileno())
        synced = took + time.monotonic() - began
        _check(self.folder / name, source)
        return took, synced


def _curl(source: Path, url: str, method: str, headers: dict[str, str]) -> float:
    command = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--request", method]
    for key, value in {**headers, "Expect": ""}.items():
        command += ["--header", f"{key}: {value}"]
    began = time.monotonic()
    subprocess.run([*command, "--upload-file", source, url], check=True)
    return time.monotonic() - began


def _check(arrived: Path, source: Path) -> None:
    """The whole file came; it makes room for the next."""
    if arrived.stat().st_size != source.stat().st_size:
        raise RuntimeError(f"{arrived} has another size than {source}")
    arrived.unlink()


def _source(folder: Path, size: int) -> Path:
    source = folder / "source.tif"
    with source.open("wb") as file:
        for _ in range(size):
            file.write(os.urandom(_MIB))
    return source


@contextmanager
def _portal(home: Path) -> Iterator[_Portal]:
    home.mkdir()
    port = free_port()
    os.environ |= {"SCIPION_CLOUD_HOME": str(home), "DJANGO_SETTINGS_MODULE": "scipion_cloud.portal.settings"}
    get_config.cache_clear()
    import django
    from django.core.management import call_command

    django.setup()
    from scipion_cloud.records.models import ApiToken, Project, User

    call_command("migrate", verbosity=0)
    owner = User.objects.create_user("benchmark", "benchmark@example.org")
    project = Project.objects.create(name="Benchmark", owner=owner)
    application = "scipion_cloud.portal.asgi:application"
    command = [sys.executable, "-m", "uvicorn", application, f"--port={port}", "--log-level=warning"]
    with _running(command, port):
        yield _Portal(f"http://127.0.0.1:{port}", project, ApiToken.issue(owner, "benchmark"))


@contextmanager
def _nginx(folder: Path) -> Iterator[_Dav]:
    (folder / "dav").mkdir(parents=True)
    port = free_port()
    configuration = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(_NGINX.format(folder=folder, port=port, user=user))
    log = str(folder / "nginx.log")
    with _running(["nginx", "-p", str(folder), "-e", log, "-c", str(configuration)], port):
        yield _Dav(f"http://127.0.0.1:{port}", folder / "dav")


@contextmanager
def _running(command: Sequence[str], port: int) -> Iterator[None]:
    """A server, from the moment when it listens. Raises RuntimeError if it never does."""
    process = subprocess.Popen(command)
    try:
        for _ in range(300):
            connect = [
                "curl",
                "--silent",
                "--noproxy",
                "*",
                "--output",
                os.devnull,
                f"http://127.0.0.1:{port}/healthz",
            ]
            if subprocess.run(connect, check=False).returncode == 0:
                break
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} has ended with code {process.returncode}.")
            time.sleep(0.1)
        else:
            raise RuntimeError(f"{command[0]} does not answer on port {port}.")
        yield
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    main()
