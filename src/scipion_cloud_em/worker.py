"""One request to Scipion, answered by a process that lives no longer: JSON in, JSON out.

    python -m scipion_cloud_em.worker REPLY_FD  <  {"op": ..., "project": ..., "args": {...}}

Scipion prints to stdout, so the answer has its own descriptor: {"result": {...}} or {"error": "..."}.
"""

import json
import os
import sys
import traceback
from pathlib import Path


def _create_project(project, comment=""):
    from scipion_cloud_em.projects import create_project

    return create_project(project, comment)


def _settle(project, protocols):
    from scipion_cloud_em.projects import settle

    return settle(project, protocols)


def _closure(project, protocol, run_db):
    from scipion_cloud_em.closure import closure

    return closure(project, protocol, run_db)


def _describe_protocol(_project, name):
    from scipion_cloud_em.forms import describe_protocol

    return describe_protocol(name)


def _versions(_project):
    import pwem
    import pyworkflow
    import relion
    import scipion

    return {
        "Scipion": scipion.__version__,
        "pyworkflow": pyworkflow.__version__,
        "pwem": pwem.__version__,
        "RELION plugin": relion.__version__,
    }


OPERATIONS = {
    "create_project": _create_project,
    "settle": _settle,
    "closure": _closure,
    "describe_protocol": _describe_protocol,
    "versions": _versions,
}


def main() -> int:
    """Answer the request on stdin; 0 if an answer was written, an error's included."""
    reply_fd = int(sys.argv[1])
    os.set_inheritable(reply_fd, False)
    request = json.load(sys.stdin)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    project = Path(request["project"]) if request.get("project") else None
    try:
        answer = {"result": OPERATIONS[request["op"]](project, **request.get("args", {}))}
    except (Exception, SystemExit) as e:  # noqa: BLE001 - the caller gets it; Scipion even exits on bad settings
        traceback.print_exc()
        answer = {"error": str(e) or type(e).__name__}
    with os.fdopen(reply_fd, "w") as reply:
        json.dump(answer, reply)
    return 0


if __name__ == "__main__":
    sys.exit(main())
