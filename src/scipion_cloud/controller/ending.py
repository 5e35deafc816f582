"""How a run ended: what its job left is put in order, read once more, and said in the user's words."""

import shutil
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipion_cloud.config import Config
from scipion_cloud.controller.failures import explain, explain_movies
from scipion_cloud.controller.lanes import end_lanes
from scipion_cloud.controller.orders import Order, away_key, read_chain, run_folder
from scipion_cloud.controller.results import Numbers, new_numbers
from scipion_cloud.errors import NotFound
from scipion_cloud.jobs.backend import JobBackend
from scipion_cloud.jobs.spec import JobId, JobState, JobStatus
from scipion_cloud.model import RunState
from scipion_cloud.tools import bridge

_SETTLED = ("finished", "failed", "aborted")  # Scipion's words for a protocol that will not change any more
_LOG_TAIL = 32 * 1024 * 1024  # bytes; a movie writes about 2 KB
_NAMED = 3  # movies that failed and are named in the run's message


@dataclass(frozen=True)
class Ending:
    """What there is to record about a run whose job has ended."""

    state: RunState
    message: str
    steps: Mapping[str, Any]
    numbers: Sequence[Numbers]  # of movies that were not known to be done yet
    lost: Mapping[str, str]  # stem -> why there is no result, for a job that came to its own end

    def verdict(
        self, total: int, failed: Sequence[tuple[str, str]], *, cancelled: bool
    ) -> tuple[RunState, str]:
        """State and message, given that `failed` (name, reason) of `total` movies gave no result.

        `cancelled`: it was asked for on the page, so that whatever broke the job is no failure.
        """
        if self.state is not RunState.FINISHED:
            return (RunState.CANCELLED, "") if cancelled else (self.state, self.message)
        if not failed:
            return RunState.FINISHED, ""
        first = "; ".join(f"{name}: {reason}" for name, reason in failed[:_NAMED])
        if len(failed) == total:
            return RunState.FAILED, f"None of the movies could be aligned. {first}"
        more = f" And {len(failed) - _NAMED} more." if len(failed) > _NAMED else ""
        return RunState.FINISHED, f"{len(failed)} of {total} movies could not be aligned. {first}{more}"


def conclude(
    config: Config, backend: JobBackend, job: JobStatus, order: Order, known: AbstractSet[str]
) -> Ending:
    """Find out how a run ended whose job is over. `known`: stems of movies whose fate is recorded already.

    Nothing of it goes on after that. Takes some seconds if Scipion's project must be settled first. May be
    repeated. Raises BridgeError if it cannot be settled, JobError if the batch system does not answer.
    """
    end_lanes(backend, order.run_id)
    shutil.rmtree(run_folder(config, order.run_id) / "lanes", ignore_errors=True)
    done, stopped = job.state is JobState.DONE, job.state is JobState.CANCELLED
    if order.site and not done:
        _end_away(backend, order)
    chain = read_chain(config, order.run_id)
    steps = chain.get("steps", {})
    if not done and _goes_on(chain):
        _settle(config, order.project, steps, "aborted" if stopped else "failed")
    numbers, _ = new_numbers(order.project, steps, known)
    if done:
        log = _step_logs(order.project, steps)
        lost = order.movies.keys() - known - {n.stem for n in numbers}
        return Ending(RunState.FINISHED, "", steps, numbers, explain_movies(log, lost))
    if stopped:
        message = "Stopped from outside of this page, as from the desktop or by the administrator."
        return Ending(RunState.CANCELLED, message, steps, numbers, {})
    log = "\n".join([_step_logs(order.project, steps), _job_log(backend, order.job), chain.get("error", "")])
    signal = -job.exit_code if job.exit_code is not None and job.exit_code < 0 else None
    return Ending(RunState.FAILED, explain(log, signal, job.reason), steps, numbers, {})


def _end_away(backend: JobBackend, order: Order) -> None:
    """End what the chain has left going on at another site: nobody waits for it any more."""
    job = backend.find(away_key(order.run_id))
    if job is not None:
        backend.cancel([job])


def _goes_on(chain: Mapping[str, Any]) -> bool:
    """Whether Scipion's project may still say that a part of the chain goes on: it was killed, then."""
    begun = [step["status"] for step in chain.get("steps", {}).values() if step["run_dir"]]
    return chain.get("status") == "running" or any(status not in (*_SETTLED, "saved") for status in begun)


def _settle(config: Config, project: Path, steps: Mapping[str, Any], outcome: str) -> None:
    """Have Scipion's project say that nothing of these steps goes on any more."""
    made = [step for step in steps.values() if step["protocol_id"] is not None]
    if made:
        protocols = [{"id": step["protocol_id"], "outcome": outcome} for step in made]
        answer = bridge.call("settle", project, config=config, protocols=protocols)
        for step in made:
            step["status"] = answer["status"].get(str(step["protocol_id"]), step["status"])


def _step_logs(project: Path, steps: Mapping[str, Any]) -> str:
    """What the steps wrote, in order; the last one's errors come last."""
    files = [
        project / step["run_dir"] / "logs" / name
        for step in steps.values()
        if step["run_dir"]
        for name in ("run.stdout", "run.stderr")
    ]
    return "\n".join(_tail(file) for file in files)


def _tail(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - _LOG_TAIL))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""  # a step that never began has no log


def _job_log(backend: JobBackend, job: JobId | None) -> str:
    if job is None:
        return ""
    try:
        logs = backend.logs(job)
    except NotFound:
        return ""
    return f"{logs.stdout}\n{logs.stderr}"
