"""The whole of it: a home with elastic nodes, and a site elsewhere with nothing in common but a cable.

Movies are aligned at home and, sent from the web, at the site; particles are classified at the site, sent
there by hand from Scipion's own desktop. Needs root, for hosts in network namespaces, as in CI.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect
from scipion_site import in_scipion, statuses, until

from scipion_cloud.cluster.history import FILE, read_history
from scipion_cloud.config import Config, read_config
from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.examples.particles import ParticleSpec, write_particles
from scipion_cloud.sites.reading import read_sites
from scipion_cloud.testing.browser import GREEN_BOXES, chromium
from scipion_cloud.testing.network import TestHost, lan
from scipion_cloud.testing.service import RunningService, running_service
from scipion_cloud.tools.movies.results import LAST_MOVED
from scipion_cloud.tools.snapshot import read_project

pytestmark = [pytest.mark.scipion, pytest.mark.timeout(900), pytest.mark.usefixtures("software")]

HOME = """
[here]
kind = "home"
title = "Home"
batch = "slurm"
flavours = [{ name = "node", cpus = 2, memory_gb = 4 }]

[here.elastic]
provider = "namespaces"
max_nodes = 2
idle_seconds = 5
"""
SPEC = MovieSpec(size=256, frames=6, gain=False)
PARTICLES = ParticleSpec(pixel_size=12)

IMPORT = """
from pwem.protocols import ProtImportParticles
p = project.newProtocol(ProtImportParticles, importFrom=ProtImportParticles.IMPORT_FROM_RELION,
    starFile="data/particles/particles.star", samplingRate=12.0, voltage=300.0, sphericalAberration=2.7,
    amplitudeContrast=0.1, copyFiles=False, haveDataBeenPhaseFlipped=False)
p.setObjLabel("import particles")
p._useQueue.set(True)
p.setQueueParams(("here", {"JOB_MEMORY": "1", "JOB_HOURS": "1"}))
project.launchProtocol(p)
answer = p.getObjId()
"""
CLASSIFY = """
from relion.protocols import ProtRelionClassify2D
particles = project.getProtocol(PARTICLES)
project._updateProtocol(particles)
p = project.newProtocol(ProtRelionClassify2D, numberOfClasses=2, maskDiameterA=300, numberOfIterations=2,
    doGpu=False, doCTF=True, numberOfMpi=1, numberOfThreads=1, inplaneAngularSamplingDeg=30,
    offsetSearchRangePix=2, offsetSearchStepPix=2, useGradientAlg=False)
p.inputParticles.set(particles)
p.inputParticles.setExtended("outputParticles")
p.setObjLabel("classes")
p._useQueue.set(True)
project.saveProtocol(p)
answer = p.getObjId()
"""


COLOUR = """([x, y]) => {
  const canvas = document.querySelector("canvas");
  const top = canvas.getBoundingClientRect().top;
  return Array.from(canvas.getContext("2d").getImageData(x, y - top, 1, 1).data);
}"""


@dataclass
class Person:
    """Somebody at the command line of the home."""

    env: dict[str, str]

    def run(self, *words: str) -> str:
        command = [sys.executable, "-m", "scipion_cloud.cli", *words]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def far(home: Path, software: Path, tmp_path: Path) -> Iterator[TestHost]:
    """The site, in its own folder; the home's sites.toml has it."""
    with tempfile.TemporaryDirectory(prefix="far-") as name, lan(tmp_path / "lan") as net:
        folder = Path(name)
        # it has the second address of the network, the first is ours
        program = [sys.executable, str(Path(__file__).with_name("far_machine.py"))]
        hidden = [str(software), str(home)]
        host = net.host("far", *program, name, net.network.address_of(2), *hidden)
        until(lambda: (folder / "ready.json").exists() or host.process.poll() is not None)
        assert host.process.poll() is None, host.log.read_text()
        table = json.loads((folder / "ready.json").read_text())
        env = "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.pop("env").items())
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        (home / "sites.toml").write_text(f"{HOME}\n[remote]\n{lines}\n[remote.env]\n{env}\n")
        yield host


@pytest.fixture
def service(home: Path, far: TestHost) -> Iterator[RunningService]:
    with running_service(home, "--slurm") as service:
        yield service


@pytest.fixture
def person(service: RunningService, tmp_path: Path) -> Person:
    person = Person({**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), "COLUMNS": "200"})
    person.run("login", service.url, "--link", service.link)
    return person


def project_of(config: Config) -> Path:
    """The folder of the only project."""
    (folder,) = (path for path in config.projects.iterdir() if (path / "project.sqlite").exists())
    return folder


def state_of(project: Path, number: int) -> str:
    """Scipion's own word; failing for those that are the end."""
    found = read_project(project).find(number)
    assert found is not None
    assert found.status not in ("failed", "aborted"), found
    return found.status


def ended(project: Path, number: int) -> bool:
    return state_of(project, number) == "finished"


def has_colour(page: Page, x: int, y: int, wanted: Callable[[int, int, int], bool]) -> bool:
    """Whether this point of the desktop has a colour that is wanted."""
    red, green, blue, _ = page.evaluate(COLOUR, [x, y])
    return wanted(red, green, blue)


def execute_at_last_queue(page: Page) -> None:
    """Open the second box, press Execute, choose the last queue in Scipion's dialog and agree."""

    def until_colour(x: int, y: int, wanted: Callable[[int, int, int], bool]) -> None:
        until(lambda: has_colour(page, x, y, wanted))

    page.mouse.dblclick(292, 357)
    until_colour(1160, 802, lambda r, g, b: r > 150 and g < 60 and b < 60)  # the form's red button
    page.mouse.click(1200, 807)
    until_colour(250, 130, lambda r, _g, _b: r < 100)  # the dialog's title covers a red line
    for _ in range(60):
        page.keyboard.press("ArrowDown")  # more of them end at the last one, too
        page.wait_for_timeout(1000)
        if has_colour(page, 305, 234, lambda *rgb: min(rgb) > 250):  # the list is over the dialog's grey
            break
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    until_colour(60, 335, lambda *rgb: max(rgb) < 240)  # the dialog is larger: the queue asks for more
    page.keyboard.press("Enter")


def send_classes_by_hand(page: Page, service: RunningService, person: Person, project: str) -> None:
    """Sign in, open the desktop, and do it there."""
    link = person.run("manage", "admin_link").split()[-1]
    page.goto(service.url + urlsplit(link).path)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Account")).to_be_visible()
    page.goto(f"/projects/{project}/")
    page.get_by_role("button", name="Open desktop").click()
    expect(page.locator("canvas").first).to_be_visible(timeout=240_000)
    page.wait_for_function(GREEN_BOXES, timeout=240_000)
    execute_at_last_queue(page)


def see_the_first_movie(config: Config, person: Person, project: Path, run: str) -> None:
    """One movie of a run is done on the web while the site works on the others; then let it go on there."""

    def done() -> Any:
        row = person.json("run", "show", "Ribosome", run)
        assert row["state"] == "running", row
        return row["movies"]["done"]

    try:
        until(lambda: list(project.glob(f"Runs/*/extra/*{LAST_MOVED}")))
        until(done)
        assert done() == 1
    finally:
        Path(read_sites(config)["remote"].env["RELION_HOME"], "go").touch()


@pytest.mark.browser
@pytest.mark.desktop
def test_both_roads_lead_there_and_back(
    service: RunningService, person: Person, far: TestHost, home: Path, tmp_path: Path
) -> None:
    config = read_config()
    write_movies(tmp_path / "day1", 2, SPEC)
    row = person.json("project", "create", "Ribosome")
    person.run("upload", "Ribosome", str(tmp_path / "day1"))
    project = project_of(config)
    write_particles(project / "data" / "particles", 30, PARTICLES)
    for hidden in (home, config.software):
        assert far.run("ls", "-A", str(hidden)) == ""  # it has nothing of ours but what is sent
    particles = in_scipion(config, IMPORT, project)
    until(lambda: ended(project, particles))
    classes = in_scipion(config, CLASSIFY.replace("PARTICLES", str(particles)), project)
    until(lambda: person.json("site", "show", "remote")["state"] == "ready")

    # the desktop's road
    with chromium() as browser:
        page = browser.new_page(base_url=service.url, viewport={"width": 1280, "height": 860})
        send_classes_by_hand(page, service, person, row["id"])
        until(lambda: state_of(project, classes) != "saved")

    # the web's road, and at home for comparison
    values = [f"pixel_size={SPEC.pixel_size}", f"dose_per_frame={SPEC.dose_per_frame}", "threads=1"]
    values += ["--movies", "*.tif*"]  # the particles lie beside them
    what = ["Ribosome", "movie-alignment", *values]
    assert {o["where"]: o["possible"] for o in person.json("run", "offers", *what)} == {
        "here": True,
        "remote": True,
    }
    sent = person.json("run", "start", *what, "--where", "remote", "--label", "sent")
    see_the_first_movie(config, person, project, sent["id"])
    kept = person.json("run", "start", *what, "--where", "here", "--label", "kept")
    assert (sent["site"], kept["site"]) == ("remote", "")

    # all comes back and is green, as if it had run at home, and the web's numbers are the same
    for run in (sent, kept):
        row = person.json("run", "wait", "Ribosome", run["id"])
        assert (row["state"], row["movies"]["done"]) == ("finished", 2), row
    until(lambda: ended(project, classes), 600)
    assert set(statuses(config, project).values()) == {"finished"}
    there, here = (person.json("run", "show", "Ribosome", run["id"])["results"] for run in (sent, kept))
    assert there == here
    found = read_project(project).find(classes)
    assert found is not None
    assert found.outputs == ("outputClasses",)
    assert "/far-" in (project / found.run_dir / "logs" / "run.stdout").read_text()  # it did run there
    assert read_history(home / "slurm" / FILE).hours_busy > 0  # of elastic nodes
