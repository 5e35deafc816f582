"""Start a job at a site: what goes there with the job's files is this one file, and `order.json` beside it.

    python there.py          in AREA/runs/NAME

It sees to it that no other job works in the same folder, puts what was sent for that folder into its place,
makes the links, and becomes the job's program. A protocol of Scipion is run by Scipion's own runner, with the
settings of the Scipion that is here. Standard library only, Python 3.8 or later.

run/: what the folder that is worked in holds at first; it is moved there. began: this has been done.
order.json: {"root": the project's folder below AREA, "run": its folder that is worked in,
"turn": [the job's number at home, which attempt at it],
"links": {path below AREA: target}, "folders": [path below AREA], "argv": [...] or null, "cwd": below AREA,
"scipion": {"home", "mpi", "db", "id"} or null}.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Do what the order in this folder says."""
    area = folder.parent.parent
    order = json.loads((folder / "order.json").read_text())
    run = order["root"] + "/" + order["run"]
    lock(area, run, order["turn"])
    begin(folder, area / run)
    for path, target in order["links"].items():
        link(area / path, target)
    for path in order["folders"]:
        (area / path).mkdir(parents=True, exist_ok=True)
    os.chdir(area / order["cwd"])
    if order["scipion"]:
        argv = scipion(area, folder, area / order["root"], order["scipion"])
    else:
        argv = order["argv"]
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606 - the job's own program


def lock(area: Path, what: str, turn: list[int]) -> None:
    """Hold a lock as long as this program, and what it becomes and starts, runs.

    Waits for a job that still works there: one that the site's queue has lost, or its last processes. A job
    that was lost, and begins when a later one has had its turn, ends here.
    """
    name = hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    file = os.open(area / "runs" / f".lock-{name}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"Waiting: another job still works in {what}.", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    if json.loads(os.pread(file, 100, 0) or b"[]") > turn:
        sys.exit(f"This job was given up, and a later one has worked in {what} since. Nothing was changed.")
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(turn).encode(), 0)
    os.set_inheritable(file, True)


def begin(folder: Path, run: Path) -> None:
    """Put what was sent in place of what an earlier job has left; one that is started again goes on."""
    sent = folder / "run"
    if sent.exists():
        run.parent.mkdir(parents=True, exist_ok=True)
        if run.exists():
            shutil.rmtree(run)
        sent.rename(run)
    (folder / "began").touch()


def link(path: Path, target: str) -> None:
    """Make a link unless it is there; what else is there is replaced, unless it is a folder."""
    if path.is_symlink() and os.readlink(path) == target:  # noqa: PTH115 - Path.readlink is not in 3.8
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.parent / f".link-{os.getpid()}"
    new.symlink_to(target)
    new.replace(path)


def scipion(area: Path, folder: Path, project: Path, order: dict[str, Any]) -> list[str]:
    """The command that runs a protocol, once this process's environment is as Scipion wants it."""
    found = importlib.util.find_spec("pyworkflow")
    if found is None or not found.submodule_search_locations:
        sys.exit(f"{sys.executable} has no Scipion: pyworkflow is missing.")
    runner = Path(next(iter(found.submodule_search_locations))) / "apps" / "pw_protocol_run.py"
    hosts = folder / "hosts.conf"
    hosts.write_text("[localhost]\nPARALLEL_COMMAND = " + order["mpi"] + "\n")
    home = Path(order["home"] or Path(sys.executable).parent.parent)
    conf = home / "config" / "scipion.conf"
    environ = os.environ
    for name, value in settings(conf).items():
        environ.setdefault(name, value)
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)])
    environ["SCIPION_HOME"] = str(home)
    environ["SCIPION_CONFIG"] = environ["SCIPION_LOCAL_CONFIG"] = str(conf)
    environ["SCIPION_HOSTS"] = str(hosts)
    environ["SCIPION_USER_DATA"] = str(area)
    environ["SCIPION_LOGS"] = str(folder)
    environ["SCIPION_PYTHON"] = sys.executable
    environ["SCIPION_NOTIFY"] = "False"
    environ["SCIPION_NO_GUI"] = environ["PYTHONNOUSERSITE"] = "1"
    environ.setdefault("SCIPION_DOMAIN", "pwem")
    environ.setdefault("LANG", "C.UTF-8")
    environ.setdefault("MPLCONFIGDIR", str(area / "runs" / ".matplotlib"))
    if os.geteuid() == 0:  # mpirun refuses to work for root otherwise
        environ["OMPI_ALLOW_RUN_AS_ROOT"] = environ["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    logs = project / Path(order["db"]).parent
    output = [str(logs / "run.stdout"), str(logs / "run.stderr")]
    return [sys.executable, str(runner), str(project), order["db"], str(order["id"]), *output]


def settings(conf: Path) -> dict[str, str]:
    """What a `scipion.conf` says, as Scipion reads it."""
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[method-assign,assignment] # names keep their case
    parser.read(conf)
    return {
        name: os.path.expandvars(value.split("#")[0]).strip()
        for section in parser.values()
        for name, value in section.items()
    }


if __name__ == "__main__":
    main(Path(__file__).absolute().parent)
