"""What a chain does with Scipion; every function here runs in a child of its own (see `children`)."""

import os
import subprocess
import sys
from pathlib import Path

import pyworkflow.project.project as pwproject
import pyworkflow.utils as pwutils
from pwem.protocols import ProtProcessMovies
from pyworkflow.protocol import runProtocolMain
from pyworkflow.protocol.constants import MODE_RESTART, MODE_RESUME
from pyworkflow.utils import LoggingConfigurator, process

from scipion_cloud_em import lanes
from scipion_cloud_em.children import die_with_parent
from scipion_cloud_em.forms import protocol_class
from scipion_cloud_em.locking import project_lock
from scipion_cloud_em.projects import ProjectError, end, load_project, plain, update_from_run


def create_steps(path: Path, key: str, steps: list, known: dict, comment: str) -> dict:
    """Make the protocols of a chain, as saved boxes that depend on each other; those that exist are kept.

    `known` maps step names to protocol ids of an earlier attempt; else the mark in its comment tells.
    Returns {step: {"protocol_id", "status", "run_dir"}}.
    """
    made = {}
    with project_lock(path):
        project = load_project(path)
        marked = {p.getObjComment(): p for p in project.getRuns()}
        for step in steps:
            mark = _mark(key, step["name"], comment)
            protocol = _known(project, known.get(step["name"]), step) or marked.get(mark)
            if protocol is None:
                protocol = _new(project, step, made)
                protocol.setObjComment(mark)
                project.saveProtocol(protocol)
            made[step["name"]] = protocol
        answer = {name: _describe(p) for name, p in made.items()}
        project.closeMapper()
    return answer


def _mark(key: str, name: str, comment: str) -> str:
    return f"{comment}\n[run {key}, {name}]".strip()


def _known(project, protocol_id, step):
    """The protocol of an earlier attempt, unless somebody has deleted it since."""
    if protocol_id is None or not project.doesProtocolExists(protocol_id):
        return None
    protocol = project.getProtocol(protocol_id)
    return protocol if protocol.getClassName() == step["class"] else None


def _new(project, step: dict, made: dict):
    protocol = project.newProtocol(protocol_class(step["class"]))
    protocol.setObjLabel(step["label"])
    for name, value in step["params"].items():
        if protocol.getParam(name) is None:
            raise ProjectError(f"{step['class']} has no parameter {name}.")
        protocol.setAttributeValue(name, value)
    for name, source in step.get("inputs", {}).items():
        producer, _, output = source.partition(".")
        if producer not in made:
            raise ProjectError(
                f"Step {step['name']} needs {source}, but there is no step {producer} before it."
            )
        pointer = getattr(protocol, name)
        pointer.set(made[producer])
        pointer.setExtended(output)
    return protocol


def _describe(protocol) -> dict:
    return {
        "protocol_id": protocol.getObjId(),
        "status": protocol.getStatus(),
        "run_dir": protocol.getWorkingDir() or "",
    }


def launch(path: Path, protocol_id: int, job_id: str) -> dict:
    """Prepare a protocol's run as Scipion's own launch does, without starting a process.

    A run that broke off goes on where it stood if it works movie by movie; others begin afresh. With a
    `job_id` Scipion takes the run for that job of the batch system. A finished protocol is left alone.
    Returns {"protocol_id", "status", "run_dir", "db", "stdout", "stderr"}.
    """
    with project_lock(path):
        project = load_project(path)
        project.checkIsAlive = lambda _protocol: True
        protocol = project.getProtocol(protocol_id)
        update_from_run(project, protocol)
        if not protocol.isFinished():
            _launch(project, protocol, job_id)
        answer = {
            **_describe(protocol),
            "db": protocol.getDbPath(),
            "stdout": protocol.getStdoutLog(),
            "stderr": protocol.getStderrLog(),
        }
        project.closeMapper()
    return answer


def _launch(project, protocol, job_id: str) -> None:
    resume = isinstance(protocol, ProtProcessMovies) and Path(protocol.getStepsFile()).exists()
    protocol.runMode.set(MODE_RESUME if resume else MODE_RESTART)
    if resume:
        _forget_outputs(protocol)
    protocol._useQueue.set(bool(job_id))

    def adopt(launched, _wait) -> None:
        """In place of a submission: the job is the one that we are in."""
        launched.cleanExecutionAttributes()
        if job_id:
            launched.setJobId(job_id)

    pwproject.pwprot.launch = adopt
    project.launchProtocol(protocol, force=True)


def _forget_outputs(protocol) -> None:
    """Have the output sets made again from the finished movies.

    A movie is noted as registered before it is added to the sets: a kill in between would lose it.
    """
    for _name, output in list(protocol.iterOutputAttributes()):
        protocol.deleteOutput(output)
    protocol.getMapper().deleteRelations(protocol)
    protocol.getMapper().commit()
    for file in (Path(protocol._getAllDone()), *Path(protocol.getWorkingDir()).glob("*.sqlite*")):
        file.unlink(missing_ok=True)


def run(path: Path, protocol_id: int, launched: dict, shared: "lanes.Lanes | None" = None) -> None:
    """Run a launched protocol in this process, with the same function as Scipion's own runner.

    `shared`: the lanes that have the commands for its movies.
    """
    os.chdir(path)
    lanes.active = shared
    process.runCommand = _run_command
    LoggingConfigurator.setUpProtocolRunLogging(launched["stdout"], launched["stderr"])
    os.dup2(sys.stdout.fileno(), 1)  # what libraries print below Python
    os.dup2(sys.stderr.fileno(), 2)
    runProtocolMain(str(path), launched["db"], protocol_id)


def _run_command(command, env=None, cwd=None, executable=None):
    """Scipion's way of running a program, unless a lane has done it; the program ends with the run."""
    if lanes.active and lanes.active.answer(command):
        return
    subprocess.run(  # noqa: S602 - Scipion builds command lines
        command,
        shell=True,
        check=True,
        stdout=sys.stdout,
        stderr=sys.stderr,
        env=env,
        cwd=cwd,
        executable=executable,
        preexec_fn=die_with_parent,
    )


def finish(path: Path, protocol_id: int, how: str) -> dict:
    """Take over a run's last state; a run that ended without one has failed, `how` it ended.

    Returns {"status", "error", "summary"}.
    """
    with project_lock(path):
        project = load_project(path)
        project.checkIsAlive = lambda _protocol: True
        protocol = project.getProtocol(protocol_id)
        update_from_run(project, protocol)
        if protocol.isActive():
            end(project, protocol, "failed", f"The run ended without a word ({how}). It can be run again.")
        answer = {
            "status": protocol.getStatus(),
            "error": plain(protocol.getErrorMessage()),
            "summary": _summary(protocol),
        }
        project.closeMapper()
    return answer


def _summary(protocol) -> list:
    """A protocol's own summary; some cannot tell it when they have failed."""
    try:
        return [plain(line) for line in protocol.summary()]
    except Exception:  # noqa: BLE001 - code of any plugin
        return []


def abort(path: Path, protocol_ids: list) -> dict:
    """Mark those of the protocols that are going on as aborted. Returns {id: status}."""
    statuses = {}
    with project_lock(path):
        project = load_project(path)
        project.checkIsAlive = lambda _protocol: True
        for protocol_id in protocol_ids:
            protocol = project.getProtocol(protocol_id)
            update_from_run(project, protocol)
            if protocol.isActive():
                end(project, protocol, "aborted", "")
            statuses[protocol_id] = protocol.getStatus()
        project.closeMapper()
    return statuses


def preload() -> None:
    """Import all that the children will need."""
    domain = pwproject.pw.Config.getDomain()
    domain.getMapperDict()
    pwutils.getHostFullName()
