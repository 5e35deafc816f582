"""A batch system for those who are elsewhere: `remote.RemoteBackend` speaks to this program.

    python -m scipion_cloud.jobs.serve --area DIR [--batch local|slurm|sge] [--option NAME=VALUE ...]

It answers on stdin and stdout (see `wire`), looks after the queue in DIR/jobs meanwhile, and ends when its
stdin does. Jobs live on, and any number of these programs may serve one area. What is not said on the command
line stands in DIR/site.json: {"batch": "slurm", "options": {"partition": "gpu"}}. Standard library only.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from scipion_cloud import __version__
from scipion_cloud.errors import ConfigError, JobError, ScipionCloudError
from scipion_cloud.jobs import wire
from scipion_cloud.jobs.backend import JobBackend
from scipion_cloud.jobs.batch_system import BatchSystem, Node
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.local import LocalBackend
from scipion_cloud.jobs.spec import JobId, JobState

LAST_WORDS = 60.0  # seconds for what is under way when stdin ends


@dataclass(frozen=True)
class Place:
    """A working area and the batch system that computes in it."""

    area: Path  # absolute
    batch: str  # "local", or what `systems.batch_system` knows
    options: Mapping[str, str]
    backend: JobBackend
    system: BatchSystem | Limits  # limits if local

    @property
    def limits(self) -> Limits:
        """The most that a job can have."""
        return self.system if isinstance(self.system, Limits) else self.system.limits()

    def nodes(self) -> tuple[Node, ...]:
        """The machines of the batch system."""
        if isinstance(self.system, BatchSystem):
            return self.system.nodes()
        here = self.system
        live = [info for info in self.backend.list(limit=0) if info.status.state is JobState.RUNNING]
        used = sum(info.cpus for info in live)
        state = "full" if used >= here.cpus else "busy" if live else "idle"
        return (Node(platform.node(), state, here.cpus, used, here.memory_gb, here.gpus),)

    def about(self) -> dict[str, Any]:
        """What this end is: versions, batch system, limits of a job, GiB that are free in the area."""
        limits = self.limits
        return {
            "version": __version__,
            "protocol": wire.PROTOCOL,
            "python": platform.python_version(),
            "host": platform.node(),
            "area": str(self.area),
            "batch": self.batch,
            "cpus": limits.cpus,
            "memory_gb": limits.memory_gb,
            "gpus": limits.gpus,
            "free_gb": shutil.disk_usage(self.area).free / 2**30,
        }


def place(area: Path, batch: str = "", options: Mapping[str, str] | None = None) -> Place:
    """The batch system of an area, whose folder is made if need be.

    Without `batch` it is what `area`/site.json says, else local. Raises ConfigError.
    """
    area = area.absolute()
    area.mkdir(0o700, parents=True, exist_ok=True)
    if not batch:
        batch, options = _written(area / "site.json")
    options = dict(options or {})
    if batch == "local":
        limits = _local_limits(options)
        return Place(area, batch, options, LocalBackend(area / "jobs", limits), limits)
    from scipion_cloud.jobs.batch import BatchBackend  # noqa: PLC0415 - a site without one starts sooner
    from scipion_cloud.jobs.systems import batch_system  # noqa: PLC0415

    system = batch_system(batch, options)
    return Place(area, batch, options, BatchBackend(area / "jobs", system), system)


def _written(path: Path) -> tuple[str, dict[str, str]]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return "local", {}
    except (OSError, ValueError) as e:
        raise ConfigError(f"{path} cannot be read: {e}") from e
    if not isinstance(content, dict) or content.keys() - {"batch", "options"}:
        raise ConfigError(f'{path} must hold {{"batch": ..., "options": {{...}}}} and nothing else.')
    return str(content.get("batch", "local")), {k: str(v) for k, v in content.get("options", {}).items()}


def _local_limits(options: Mapping[str, str]) -> Limits:
    if unknown := options.keys() - {"cpus", "memory_gb", "gpus"}:
        raise ConfigError(f"The batch system local knows cpus, memory_gb and gpus, not {', '.join(unknown)}.")
    cpus, memory_gb, gpus = (options.get(name, "0") for name in ("cpus", "memory_gb", "gpus"))
    try:
        return Limits.of_machine(int(cpus), float(memory_gb), gpus=int(gpus))
    except ValueError as e:
        raise ConfigError(f"cpus, memory_gb and gpus have to be numbers: {e}") from e


class Server:
    """Answers requests from one stream on another, each in a thread of its own."""

    def __init__(self, here: Place, requests: BinaryIO, answers: int) -> None:
        self._place = here
        self._backend = here.backend
        self._requests = requests
        self._answers = answers  # a file descriptor
        self._turn = threading.Lock()

    def run(self) -> None:
        """Serve until the requests end."""
        self._send(wire.line({"hello": wire.PROTOCOL, "version": __version__}))
        for chore in (self._beat, self._look_after):
            threading.Thread(target=chore, daemon=True).start()
        under_way: list[threading.Thread] = []
        for text in self._requests:
            under_way = [thread for thread in under_way if thread.is_alive()]
            thread = threading.Thread(target=self._serve, args=(text,), daemon=True)
            thread.start()
            under_way.append(thread)
        deadline = time.monotonic() + LAST_WORDS
        for thread in under_way:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _serve(self, text: bytes) -> None:
        if not text.endswith(b"\n"):
            return  # the connection broke in the midst of it
        request = json.loads(text)
        message = {"id": request["id"]}
        try:
            message["answer"] = wire.encode(self._answer(request["call"], request["args"]))
        except Exception as e:  # noqa: BLE001 - whatever it is, the other side must hear of it
            if not isinstance(e, ScipionCloudError):
                traceback.print_exc()
            message["error"] = wire.error(e)
        self._send(wire.line(message))

    def _answer(self, call: str, args: dict[str, Any]) -> Any:
        backend = self._backend
        match call:
            case "submit":
                return backend.submit(wire.spec_of(args["spec"]), args["key"])
            case "submit_all":
                return backend.submit_all([(wire.spec_of(spec), key) for spec, key in args["jobs"]])
            case "status":
                return backend.status(map(JobId, args["ids"]))
            case "cancel":
                return backend.cancel(map(JobId, args["ids"]))
            case "logs":
                return backend.logs(JobId(args["job"]), args["tail"])
            case "find":
                return backend.find(args["key"])
            case "list":
                return backend.list(args["limit"])
            case "tick":
                return backend.tick()
            case "about":
                return self._place.about()
            case "nodes":
                return self._place.nodes()
        raise JobError(f"This site's version {__version__} of Scipion Cloud knows no {call!r}; upgrade it.")

    def _beat(self) -> None:
        while True:
            time.sleep(wire.BEAT)
            self._send(b"\n")

    def _look_after(self) -> None:
        """Scheduling passes, which others make as well; nobody has to ask for them."""
        said = ""
        while True:
            try:
                self._backend.tick()
                said = ""
            except (ScipionCloudError, OSError) as e:
                if str(e) != said:
                    said = str(e)
                    print(said, file=sys.stderr)
            time.sleep(wire.BEAT)

    def _send(self, message: bytes) -> None:
        try:
            with self._turn:
                while message:
                    message = message[os.write(self._answers, message) :]
        except OSError:
            pass  # nobody listens any more; the requests end as well


def parser(name: str = "serve") -> argparse.ArgumentParser:
    """What the command line may say; `door` takes the same."""
    parse = argparse.ArgumentParser(name, description="Serve the batch system of a working area.")
    parse.add_argument("--area", type=Path, required=True, help="the working area, a folder")
    parse.add_argument("--batch", default="", help="local, slurm or sge; as AREA/site.json says if not given")
    parse.add_argument("--option", action="append", default=[], type=_pair, metavar="NAME=VALUE")
    return parse


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def main(argv: Sequence[str]) -> int:
    """Serve on stdin and stdout. The exit code is 2 if that cannot be."""
    args = parser().parse_args(argv)
    try:
        here = place(args.area, args.batch, dict(args.option))
    except (ScipionCloudError, OSError) as e:
        print(e, file=sys.stderr)
        return 2
    answers = os.dup(1)  # whatever else is printed must not get in between
    os.dup2(2, 1)
    Server(here, sys.stdin.buffer, answers).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
