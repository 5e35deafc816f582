"""More lanes for the movies of a step: jobs of the batch system that take movies off the protocol's hands.

The protocol goes through its movies as ever. Those that nobody has it takes itself, one after the other, and
works on them as it would alone. Those that another lane has finished it takes over: what the program wrote
and its exit code count as if it had run here. So a run looks the same to Scipion however it was computed,
never depends on the other lanes, and what they leave undone it does.

Before its first movie it plans the lanes: a folder with what `lane` needs. A protocol that goes on later
finds the plan, and the same jobs, as their keys are the same. It does not plan sooner, as one that has not
come so far begins afresh, and cleans its folder.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from scipion_cloud_em.jobs import FINAL, RefusedError, look, submit
from scipion_cloud_em.lane import take

active = None  # those of the protocol that runs in this process
OWN = "0"  # the protocol's own lane; the jobs' have numbers from 1
_PLAN = "plan.json"
_PAUSE = 0.2  # s between two looks for a result
_SOONEST, _LATEST = 5.0, 30.0  # s between two questions to the batch system while there is none


class Lanes:
    """The other lanes of one step. `wish`: {"count", "cpus", "memory_gb", "key", "name"}, see `chain`."""

    def __init__(self, folder: Path, wish: dict) -> None:
        self.folder, self.wish = folder, wish
        self.ahead = 2 * wish["count"] + 2  # movies to choose from
        self.commands: dict = {}  # for the plan, as `recording` finds them
        self.begun = False
        self.jobs: list = []
        self.movies: dict = {}
        self.ended: dict = {}  # {command: (name, how it ended)} of the movie that is taken over now

    def begin(self) -> None:
        """Plan, unless that was done before, and submit the jobs, which happens once."""
        self.begun = True
        if not self.is_planned():
            self.write(self.commands)
        plan = json.loads((self.folder / _PLAN).read_text())
        self.movies = {movie["name"]: movie for movie in plan["movies"]}
        argv = [sys.executable, "-I", "-S", str(Path(__file__).with_name("lane.py")), str(self.folder)]
        script = self.folder / "lane.sh"
        script.write_text(f'exec {shlex.join(argv)} "$SCIPION_CLOUD_JOB_INDEX"\n')
        wish = self.wish
        try:
            self.jobs = submit(
                script,
                {**os.environ, **plan["env"]},
                key=wish["key"],
                count=wish["count"],
                name=wish["name"],
                cpus=wish["cpus"],
                memory=wish["memory_gb"],
            )
        except RefusedError as e:
            print(f"No other job takes movies: {e}", flush=True)
        else:
            print(f"Movies are also taken by job {', '.join(map(str, self.jobs))}", flush=True)

    def is_planned(self) -> bool:
        """Whether there is a plan already."""
        return (self.folder / _PLAN).exists()

    def write(self, plan: dict) -> None:
        """Write the plan, in one piece."""
        self.folder.mkdir(exist_ok=True)
        new = self.folder / f"{_PLAN}.new"
        with new.open("w") as file:
            json.dump(plan, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.folder / _PLAN)

    def choose(self, names: list) -> str:
        """The one of these movies to go on with: one with a result, else one that nobody has, which is ours
        then. Waits while there is none."""
        if not self.begun:
            self.begin()
        looked, pause = time.monotonic(), _SOONEST
        while True:
            there = set(os.listdir(self.folder))  # noqa: PTH208 - NFS forgets what it took for missing
            for name in names:
                if name not in self.movies or f"{name}.json" in there:
                    return name
            for name in names:
                if take(self.folder, name, OWN):
                    return name
            if time.monotonic() - looked > pause:
                self.free(names)
                looked, pause = time.monotonic(), min(1.5 * pause, _LATEST)
            time.sleep(_PAUSE)

    def take_over(self, name: str):
        """Wait until a movie is done or ours, and have `answer` know how its command ended if it is done.

        Returns the seconds that this took elsewhere, None for a movie that is to be worked on here.
        """
        result, used = (self.folder / f"{self.choose([name])}.{kind}" for kind in ("json", "used"))
        if not result.exists() or used.exists():  # it has been taken over before, in part: begin again
            return None
        used.touch()
        ended = json.loads(result.read_text())
        self.ended = {self.movies[name]["command"]: (name, ended)}
        return ended["seconds"]

    def free(self, names: list) -> None:
        """Have those of these movies that were lost with their lane belong to nobody again."""
        if not self.jobs:
            self.begin()
        states = look(self.jobs)
        for name in names:
            link = self.folder / f"{name}.lane"
            number = int(os.readlink(link))  # noqa: PTH115 - the text
            job = self.jobs[number - 1] if 0 < number <= len(self.jobs) else None
            done = (self.folder / f"{name}.json").exists  # written before its job ends
            if job and states[job]["state"] in FINAL and not done():
                print(f"{name}: job {job} is {states[job]['state']}: {states[job]['reason']}", flush=True)
                link.unlink()

    def answer(self, command: str) -> bool:
        """Whether this command has been run by another lane; its log is taken over then, and its end.

        Raises CalledProcessError if it failed.
        """
        name, ended = self.ended.pop(command, ("", None))
        if ended is None:
            return False
        for kind, stream in (("out", sys.stdout), ("err", sys.stderr)):
            log = self.folder / f"{name}.{kind}"
            stream.write(log.read_text(errors="replace"))
            stream.flush()
            log.unlink()
        if ended["code"]:
            raise subprocess.CalledProcessError(ended["code"], command)
        return True
