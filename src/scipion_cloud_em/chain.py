"""Run a chain of protocols as one job:  python -m scipion_cloud_em.chain REQUEST.json

Request: {"key", "project": folder, "comment", "steps": [{"name", "class", "label", "params": {name: value},
"inputs": {param: "<step>.<output>"}}]}. Writes STATE.json beside it (see `state`). A step with "queue":
{"name", "params", "key"} is not run here but submitted to that queue of Scipion's hosts.conf, and waited for.
A step with "lanes": {"count", "cpus", "memory_gb", "key", "name"} has that many other jobs take some of its
movies.

The same request can be run again at any time: finished steps stay, the one that broke off goes on.
Exit code 0 if all steps have finished, 1 if one failed, 143 after SIGTERM, when what was going on is marked
as aborted. What is elsewhere goes on then: a machine may be going down, and this begin again with the next.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from scipion_cloud_em.jobs import FINAL, look
from scipion_cloud_em.lanes import Lanes
from scipion_cloud_em.state import STATE_NAME, ChainState

_ABORTED = 128 + signal.SIGTERM
_JOB_ID = "SCIPION_CLOUD_JOB_ID"
_SOONEST, _LATEST = 1.0, 10.0  # s between two looks at a job elsewhere


class Chain:
    """One chain of protocols, from request to end."""

    def __init__(self, file: Path) -> None:
        request = json.loads(file.read_text())
        self.key: str = request["key"]
        self.project = Path(request["project"])
        self.steps: list = request["steps"]
        self.comment: str = request.get("comment", "")
        self.job_id = os.environ.get(_JOB_ID, "")
        self.folder = file.parent
        self.state = ChainState(file.with_name(STATE_NAME), self.key, [s["name"] for s in self.steps])
        self.stopped = False
        self.running = 0  # process id of the protocol that runs now
        self.away = ""  # what is waited for that is not below this process, in words
        self.began = time.monotonic()

    def run(self) -> int:
        """Run all steps; returns the exit code."""
        from scipion_cloud_em import chain_steps as do
        from scipion_cloud_em.children import ChildError, in_child

        do.preload()
        self.say("Scipion is loaded")
        known = {s["name"]: self.state.protocol_id(s["name"]) for s in self.steps}
        try:
            made = in_child(do.create_steps, self.project, self.key, self.steps, known, self.comment)
            for name, values in made.items():
                self.state.set_step(name, **values)
            for step in self.steps:
                if self.stopped:
                    break
                run = self.send_step if step.get("queue") else self.run_step
                if run(step) != "finished":
                    break
        except ChildError as e:
            self.state.set_status("failed", str(e))
            self.say(str(e))
            return 1
        return self.conclude()

    def run_step(self, step: dict) -> str:
        """Run one step unless it has finished already; returns its status."""
        from scipion_cloud_em import chain_steps as do
        from scipion_cloud_em.children import describe_exit, in_child, start_child, wait_for
        from scipion_cloud_em.recording import commands

        name = step["name"]
        protocol = self.state.protocol_id(name)
        launched = in_child(do.launch, self.project, protocol, self.job_id)
        if launched["status"] != "finished":
            self.state.set_step(name, status="running", run_dir=launched["run_dir"], error="")
            self.say(f"{name}: running in {launched['run_dir']}")
            shared = None
            if step.get("lanes"):
                shared = Lanes(self.folder / "lanes", step["lanes"])
                if not shared.is_planned():
                    shared.commands = in_child(commands, self.project, launched["db"], protocol)
                self.away = "what other jobs have of its movies"
            self.running = start_child(do.run, self.project, protocol, launched, shared)
            if self.stopped:  # the signal came just before
                self.stop()
            code = wait_for(self.running)
            self.running = 0
            if self.stopped:
                return "aborted"
            ended = in_child(do.finish, self.project, protocol, describe_exit(code))
        else:
            ended = in_child(do.finish, self.project, protocol, "")
        self.state.set_step(name, **ended)
        self.say(f"{name}: {ended['status']} {ended['error']}")
        return ended["status"]

    def send_step(self, step: dict) -> str:
        """Submit one step to its queue, unless that has been done, and wait for its end; its status."""
        from scipion_cloud_em import chain_away as away
        from scipion_cloud_em import chain_steps as do
        from scipion_cloud_em.children import in_child

        name = step["name"]
        protocol, ended = self.state.protocol_id(name), {"state": "DONE", "reason": ""}
        sent = in_child(away.send, self.project, protocol, step["queue"])
        if sent["error"]:
            self.state.set_step(name, **sent)
            self.say(f"{name}: {sent['error']}")
            return sent["status"]
        if sent["status"] != "finished":
            self.state.set_step(name, **{**sent, "status": "running"}, phase="")
            self.say(f"{name}: job {sent['job']} for {step['queue']['name']}, in {sent['run_dir']}")
            self.away = f"job {sent['job']}"
            ended = self.wait_away(name, sent["job"])
        if self.stopped:
            return "aborted"
        if ended["state"] == "CANCELLED":
            in_child(do.abort, self.project, [protocol])
        how = ended["reason"] or f"job {sent['job']} is {ended['state']}"
        found = in_child(do.finish, self.project, protocol, how)
        if found["status"] == "aborted":
            found["error"] = how
        self.state.set_step(name, **found, phase="")
        self.say(f"{name}: {found['status']} {found['error']}")
        return found["status"]

    def wait_away(self, name: str, job: int) -> dict:
        """Wait for the end of the job elsewhere, or of the chain; what is known of the job then.

        Its phase, as "sending 1.2 GiB, 3 min left", is kept in the step's state.
        """
        pause, phase, seen = _SOONEST, "", {"state": "UNKNOWN", "reason": ""}
        while not self.stopped:
            seen = look([job])[job]
            if seen["state"] in FINAL:
                break
            if seen["reason"] != phase:
                phase, pause = seen["reason"], _SOONEST
                self.state.set_step(name, phase=phase)
                self.say(f"{name}: {phase}")
            self.sleep(pause)
            pause = min(1.5 * pause, _LATEST)
        return seen

    def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the request to stop."""
        until = time.monotonic() + seconds
        while not self.stopped and time.monotonic() < until:
            time.sleep(0.2)

    def conclude(self) -> int:
        """Write the last state; returns the exit code."""
        from scipion_cloud_em import chain_steps as do
        from scipion_cloud_em.children import in_child

        steps = self.state.data["steps"]
        if self.stopped and self.away:
            self.say(f"stopped; {self.away} goes on, and so will this, unless somebody ends it")
            return _ABORTED
        if self.stopped:
            ids = {s["protocol_id"]: name for name, s in steps.items()}
            for protocol, status in in_child(do.abort, self.project, list(ids)).items():
                self.state.set_step(ids[int(protocol)], status=status)
            self.state.set_status("aborted")
            self.say("stopped")
            return _ABORTED
        failed = next((s for s in steps.values() if s["status"] != "finished"), None)
        self.state.set_status("failed" if failed else "finished", failed["error"] if failed else "")
        self.say("failed" if failed else "finished")
        return 1 if failed else 0

    def stop(self, *_signal) -> None:
        """Have the chain end soon: kill what runs; `run` does the rest."""
        from scipion_cloud_em.children import kill_tree

        self.stopped = True
        if self.running:
            kill_tree(self.running)

    def say(self, text: str) -> None:
        """A line for the job's log, with the seconds since the start."""
        print(f"{time.monotonic() - self.began:8.2f} s  {text}", flush=True)


def main() -> int:
    """Run the chain of the request named on the command line."""
    chain = Chain(Path(sys.argv[1]).absolute())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, chain.stop)
    return chain.run()


if __name__ == "__main__":
    sys.exit(main())
