"""A step of a chain at another site: launched as the desktop launches, and looked after.

What Scipion submits goes through its own hosts.conf to `scipion-cloud job submit`, and from there to the
broker, which brings the whole folder of the run back before the job counts as ended.
"""

import ast
import os
from pathlib import Path

from pyworkflow.protocol.constants import MODE_RESTART

from scipion_cloud_em.locking import project_lock
from scipion_cloud_em.projects import load_project, plain, update_from_run

_KEY = "SCIPION_CLOUD_JOB_KEY"  # `job submit` takes it for its --key
_REFUSED = "queue engine: "  # Scipion writes the words of the command as a list behind it


def send(path: Path, protocol_id: int, queue: dict) -> dict:
    """Submit a protocol by Scipion's own launch; `queue` holds {"name", "params", "key"}.

    Doing it again, also after a kill, gives the same job and leaves alone what it has made, as it leaves a
    finished protocol. Returns {"status", "run_dir", "job", "error"}; `job` is 0 if there is none.
    """
    os.environ[_KEY] = queue["key"]
    with project_lock(path):
        project = load_project(path)
        project.checkIsAlive = lambda _protocol: True
        protocol = project.getProtocol(protocol_id)
        update_from_run(project, protocol)
        if not protocol.isFinished():
            protocol._useQueue.set(True)
            protocol.setQueueParams((queue["name"], queue["params"]))
            protocol.runMode.set(MODE_RESTART)
            # Once there is a script its job may have begun: "scheduled" runs keep their folder as it is.
            begun = bool(protocol.getWorkingDir()) and Path(protocol.getSubmitDict()["JOB_SCRIPT"]).exists()
            project.launchProtocol(protocol, force=True, scheduled=begun)
        answer = {
            "status": protocol.getStatus(),
            "run_dir": protocol.getWorkingDir() or "",
            "job": int(next(iter(protocol.getJobIds()), 0)),
            "error": _words(plain(protocol.getErrorMessage())) if protocol.isFailed() else "",
        }
        project.closeMapper()
    return answer


def _words(message: str) -> str:
    """What the submission said, of a message that holds it as a list of texts."""
    _, found, rest = message.partition(_REFUSED)
    try:
        parts = ast.literal_eval(rest) if found else [message]
    except (ValueError, SyntaxError):
        return message
    return "\n".join(str(part) for part in parts).strip().removeprefix("Error: ")
