"""The batch system as the command `scipion-cloud job` shows it."""

import json
import subprocess
from pathlib import Path

from scipion_cloud_em.children import die_with_parent

FINAL = ("DONE", "FAILED", "CANCELLED")
_UNKNOWN = {"state": "UNKNOWN", "reason": ""}


class RefusedError(Exception):
    """The batch system does not take a job now; the message has its words."""


def look(jobs: list) -> dict:
    """What the batch system says of jobs, {job: {"state", "reason"}}; UNKNOWN where it does not answer."""
    if not jobs:
        return {}
    command = ["scipion-cloud", "job", "status", "--json", *map(str, jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=die_with_parent)
    try:
        found = {int(one["id"]): one for one in json.loads(done.stdout)}
    except (ValueError, LookupError):
        found = {}
    return {job: {**_UNKNOWN, **found.get(job, {})} for job in jobs}


def submit(script: Path, env: dict, **options) -> list:
    """Submit a script that can go on after a loss, with the options of the command; the jobs' numbers.

    Raises RefusedError.
    """
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        ["scipion-cloud", "job", "submit", "--resumable", *words, str(script)],
        cwd=script.parent,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=die_with_parent,
    )
    if done.returncode:
        raise RefusedError(done.stderr.strip().removeprefix("Error: "))
    return [int(line) for line in done.stdout.split()]
