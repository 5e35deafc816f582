"""What the tests of Scipion share: tiny movies, chains, and programs run as the desktop's Scipion would."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from scipion_cloud.config import Config
from scipion_cloud.tools.bridge import call
from scipion_cloud.tools.environment import scipion_environ
from scipion_cloud.tools.inputs import link_inputs

FRAMES = 8


def write_movie(file: Path, seed: int = 0, size: int = 256, frames: int = FRAMES) -> None:
    """A movie of smooth noise that moves by half a pixel per frame."""
    rng = np.random.default_rng(seed)
    side = size + frames + 4
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    scene = np.fft.irfft2(
        np.fft.rfft2(rng.normal(size=(side, side))) * np.exp(-40 * frequency**2), (side, side)
    )
    scene = 10 + 4 * scene / scene.std()
    stack = [scene[f // 2 : f // 2 + size, f : f + size] for f in range(frames)]
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, rng.poisson(np.clip(stack, 0, None)).astype(np.uint8))


def make_project(config: Config, name: str = "tiny-00000001", movies: int = 3) -> Path:
    """A Scipion project with movies in its data folder."""
    project = config.projects / name
    call("create_project", project, comment="a test", config=config)
    for i in range(movies):
        write_movie(project / "data" / f"movie {i}.tif", i)
    return project


class ChainRun:
    """A chain of import and alignment, as the controller has the batch system run it."""

    def __init__(
        self, config: Config, project: Path, key: str = "k1", gain: str = "", **align: object
    ) -> None:
        self.config, self.project = config, project
        names = {p.stem.replace(" ", "_"): p.name for p in sorted((project / "data").glob("movie*"))}
        inputs = link_inputs(project, key, names, gain)
        files: dict[str, object] = {"filesPath": inputs.folder, "filesPattern": inputs.pattern}
        if inputs.gain:
            files["gainFile"] = inputs.gain
        self.folder = config.home / "runs" / key
        self.folder.mkdir(parents=True)
        request = {
            "key": key,
            "project": str(project),
            "comment": "My Movie Alignment",
            "steps": [
                {
                    "name": "import",
                    "class": "ProtImportMovies",
                    "label": "import movies",
                    "params": {"samplingRate": 1.5, "dosePerFrame": 1.0, **files},
                    "inputs": {},
                },
                {
                    "name": "align",
                    "class": "ProtRelionMotioncor",
                    "label": "align movies",
                    "params": {"numberOfThreads": 1, "numberOfMpi": 1, **align},
                    "inputs": {"inputMovies": "import.outputMovies"},
                },
            ],
        }
        (self.folder / "REQUEST.json").write_text(json.dumps(request))

    def start(self, **environ: str) -> subprocess.Popen[bytes]:
        """Start the chain; outputs are registered every second."""
        variables = {"SCIPION_CLOUD_JOB_ID": "7", "SCIPION_STEPS_CHECK_SEC": "1", **environ}
        return subprocess.Popen(
            [self.config.scipion_python, "-m", "scipion_cloud_em.chain", self.folder / "REQUEST.json"],
            env=scipion_environ(self.config, self.config.projects) | variables,
            cwd="/",
            start_new_session=True,
        )

    def run(self) -> int:
        """Run the chain to its end; its exit code."""
        return self.start().wait(timeout=480)

    @property
    def state(self) -> dict[str, Any]:
        """STATE.json, empty before it is there."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "STATE.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def step(self, name: str) -> dict[str, Any]:
        """The state of one step."""
        found: dict[str, Any] = self.state.get("steps", {}).get(name, {})
        return found

    @property
    def extra(self) -> Path:
        """Where the alignment leaves its results."""
        return self.project / self.step("align")["run_dir"] / "extra"

    def aligned(self) -> list[str]:
        """The micrographs that are there."""
        run_dir = self.step("align").get("run_dir")
        return sorted(p.name for p in (self.project / run_dir / "extra").glob("*_DW.mrc")) if run_dir else []

    def movies_done(self) -> int:
        """How many movies are registered as done."""
        return (
            len(list((self.extra / "DONE").glob("movie_*.TXT"))) if self.step("align").get("run_dir") else 0
        )


def relion_with_a_gate(real: Path, folder: Path) -> Path:
    """A RELION in a folder that aligns one movie, and the others only once a file `go` is in its home."""
    home = folder / real.name
    (home / "bin").mkdir(parents=True)
    (home / "lib").symlink_to(real / "lib")
    for program in (real / "bin").iterdir():
        (home / "bin" / program.name).symlink_to(program)
    gate = home / "bin" / "relion_run_motioncorr"
    behind = gate.readlink()
    gate.unlink()
    wait = f"mkdir '{home}/first' 2>/dev/null || until [ -e '{home}/go' ]; do sleep 0.1; done"
    asked = f'case "$*" in *--version*) ;; *) {wait} ;; esac'
    gate.write_text(f"#!/bin/sh\n{asked}\nexec '{behind}' \"$@\"\n")
    gate.chmod(0o755)
    return home


def until(what: Callable[[], object], timeout: float = 240) -> None:
    """Wait until `what` is true."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.02)


def in_scipion(config: Config, program: str, project: Path, **environ: str) -> Any:
    """Run a Python program in the Scipion environment with `project` loaded, as a desktop does.

    What it stores in `answer` comes back.
    """
    before = (
        "import json, sys, pyworkflow as pw; from pyworkflow.project import Project\n"
        "project = Project(pw.Config.getDomain(), sys.argv[1]); project.load(); answer = None\n"
    )
    after = "\nprint('ANSWER ' + json.dumps(answer))"
    done = subprocess.run(
        [config.scipion_python, "-c", before + program + after, project],
        env=scipion_environ(config, config.projects) | environ,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=480,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("ANSWER ")[2])


def statuses(config: Config, project: Path) -> Mapping[str, str]:
    """What a desktop that opens the project shows, box by box."""
    found: Mapping[str, str] = in_scipion(
        config, "answer = {r.getObjLabel(): r.getStatus() for r in project.getRuns()}", project
    )
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def descendants(pid: int) -> set[int]:
    """All processes below one."""
    found = set()
    for child in Path("/proc").iterdir():
        if child.name.isdigit():
            try:
                parent = int((child / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found |= {int(child.name), *descendants(int(child.name))}
    return found
