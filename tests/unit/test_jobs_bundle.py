"""The one file that a remote site needs: standard library only, the same bytes each time."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scipion_cloud import __version__
from scipion_cloud.jobs import JobBackend, JobState, bundle
from scipion_cloud.jobs.remote import Channel, RemoteBackend
from scipion_cloud.testing.job_backend import sh, wait_for

ALONE = (sys.executable, "-I", "-S")  # no environment, no packages


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / bundle.NAME
    bundle.write_bundle(path)
    return path


def test_about(site: Path) -> None:
    answer = json.loads(subprocess.check_output([*ALONE, site, "about"]))
    assert answer["version"] == __version__


def test_it_runs_by_itself(site: Path) -> None:
    assert json.loads(subprocess.check_output([site, "about"]))["version"] == __version__


def test_every_module_loads_alone(site: Path) -> None:
    with zipfile.ZipFile(site) as archive:
        names = [name.removesuffix(".py").replace("/", ".") for name in archive.namelist()]
    modules = [name.removesuffix(".__init__") for name in names if name != "__main__"]
    assert "scipion_cloud.jobs.sge" in modules
    script = f"import sys; sys.path.insert(0, {str(site)!r})\n" + "".join(f"import {m}\n" for m in modules)
    script += f"print(scipion_cloud.__file__ == {str(site / 'scipion_cloud/__init__.py')!r})"
    assert subprocess.check_output([*ALONE, "-W", "error", "-c", script], text=True) == "True\n"


def test_same_bytes_each_time(site: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    bundle.write_bundle(again)
    assert again.read_bytes() == site.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", bundle.NAME]


def test_a_bundle_can_make_no_other(site: Path) -> None:
    """The bundle knows no source to make one of; it does not pretend."""
    done = subprocess.run([*ALONE, site, "bundle"], capture_output=True, text=True)
    assert done.returncode == 2
    assert __version__ in done.stderr


def test_jobs_run_from_it(site: Path, tmp_path: Path) -> None:
    channel = Channel((*ALONE, str(site), "serve", "--area", str(tmp_path / "area"), "--batch", "local"))
    backend: JobBackend = RemoteBackend(channel)
    (status,) = wait_for(backend, backend.submit(sh("echo out", tmp_path), "a"))
    assert status.state is JobState.DONE, status.reason


def test_replaced_while_it_is_used(site: Path, tmp_path: Path) -> None:
    channel = Channel((*ALONE, str(site), "serve", "--area", str(tmp_path / "area"), "--batch", "local"))
    backend = RemoteBackend(channel)
    backend.list()
    site.write_bytes(b"")  # in place, worse than what write_bundle does
    bundle.write_bundle(site)
    (status,) = wait_for(backend, backend.submit(sh("echo out", tmp_path), "a"))
    assert status.state is JobState.DONE, status.reason
    assert backend.nodes()[0].cpus >= 1
