"""Operations on projects that need Scipion itself; each runs in a process of its own."""

import os
import re
import shutil
from pathlib import Path

import pyworkflow as pw
import pyworkflow.protocol as pwprot
from pyworkflow.constants import PROJECT_DBNAME
from pyworkflow.project import Project
from pyworkflow.utils import getFileLastModificationDate

from scipion_cloud_em.locking import project_lock
from scipion_cloud_em.sqlite_files import copy_database, is_sound, remove_database

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_NEW = ".new-project"


class ProjectError(Exception):
    """The project cannot be used as asked; the text says why."""


def plain(text: str) -> str:
    """A message of Scipion without the terminal's colours."""
    return _COLOURS.sub("", str(text or "")).strip()


def load_project(path: Path) -> Project:
    """Load the project in folder `path`; the working folder becomes the project's, as Scipion needs."""
    if not (path / PROJECT_DBNAME).is_file():
        raise ProjectError(f"{path.name} holds no Scipion project: {PROJECT_DBNAME} is missing.")
    project = Project(pw.Config.getDomain(), str(path))
    project.load()
    return project


def create_project(path: Path, comment: str = "") -> dict:
    """Make a project in folder `path`, beside other files that may be there already.

    Never touches a project that exists, unlike Scipion, which wipes it. The database comes last,
    so that an interrupted creation can be repeated.
    """
    path.mkdir(parents=True, exist_ok=True)
    with project_lock(path):
        if (path / PROJECT_DBNAME).exists():
            raise ProjectError(f"{path.name} holds a Scipion project already; it was left as it is.")
        runs = path / "Runs"
        if runs.is_dir() and any(runs.iterdir()):
            raise ProjectError(
                f"{path.name} holds runs but no {PROJECT_DBNAME}: restore it. Nothing was changed."
            )
        made = path / _NEW
        shutil.rmtree(made, ignore_errors=True)
        project = Project(pw.Config.getDomain(), str(made))
        project.create(comment=comment)
        project.closeMapper()
        os.chdir(path)
        for entry in sorted(made.iterdir(), key=lambda p: p.name == PROJECT_DBNAME):
            if not (path / entry.name).exists():
                entry.rename(path / entry.name)
        shutil.rmtree(made)
    return {"path": str(path)}


def settle(path: Path, protocols: list) -> dict:
    """Bring the project's database in line with what has happened, after a job has ended.

    `protocols` holds {"id", "outcome": "failed" | "aborted", "message"} for protocols whose job is gone:
    one that still counts as active gets that outcome. All others that have ended are brought up to date from
    their own database, which heals what a stale writer undid. Returns {"status": {id: status}}.
    """
    with project_lock(path):
        project = load_project(path)
        project.checkIsAlive = lambda _protocol: True  # we know better; it would ask the batch system
        status = {}
        for item in protocols:
            if not project.doesProtocolExists(item["id"]):
                status[str(item["id"])] = "deleted"
                continue
            protocol = project.getProtocol(item["id"])
            update_from_run(project, protocol)
            if protocol.isActive():
                end(project, protocol, item["outcome"], item.get("message", ""))
            status[str(item["id"])] = protocol.getStatus()
        for protocol in project.getRuns():
            if not protocol.isActive():
                update_from_run(project, protocol)
        project.mapper.commit()
        project.closeMapper()
    return {"status": status}


def update_from_run(project: Project, protocol) -> None:
    """Take over a run's state from its own database where that is newer."""
    own = Path(project.path) / protocol.getDbPath() if protocol.workingDir.get() else None
    if own is None or not own.exists() or pwprot.isProtocolUpToDate(protocol):
        return
    if not is_sound(own):  # torn by a kill: the project's view is all that is left
        remove_database(own)
        copy_database(Path(project.path) / PROJECT_DBNAME, own)
    project._updateProtocol(protocol)
    project.mapper.store(protocol)
    project.mapper.commit()


def end(project: Project, protocol, outcome: str, message: str) -> None:
    """Mark an active protocol as failed or aborted in its own database and in the project's."""
    if outcome == "aborted":
        protocol.setAborted()
    else:
        protocol.setFailed(message)
        if Path(protocol.getStepsFile()).exists():
            running = f"status='{pwprot.STATUS_RUNNING}'"
            protocol._updateSteps(lambda step: step.setFailed(message), where=running)
    protocol.setPid(0)
    if Path(protocol.getDbPath()).exists():
        own = project.createMapper(protocol.getDbPath())
        protocol.setMapper(own)
        protocol._store()
        own.commit()
        own.close()
        protocol.setMapper(project.mapper)
        protocol.lastUpdateTimeStamp.set(getFileLastModificationDate(protocol.getDbPath()))
    project._storeProtocol(protocol)
