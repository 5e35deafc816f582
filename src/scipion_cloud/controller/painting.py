"""The process that makes pictures of movies, so quietly that the runs do not notice.

    python -m scipion_cloud.controller.painting

One request a line on stdin, one answer a line on stdout, in the same order; it ends with its stdin. It knows
nothing of the database.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from scipion_cloud.errors import NotFound, ScipionCloudError
from scipion_cloud.tools.movies.pictures import make_pictures, make_thumbnail
from scipion_cloud.tools.movies.results import scan_results

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer requests until there are no more."""
    be_quiet()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            paint(request)
            error = ""
        except ScipionCloudError as e:
            error = str(e)
        except Exception as e:  # noqa: BLE001 - told to whoever asked
            error = f"{type(e).__name__}: {e}"
        sys.stdout.write(json.dumps({"error": error}) + "\n")
        sys.stdout.flush()


def be_quiet() -> None:
    """Take only what the machine has left over, and end with the controller however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(19)
    with contextlib.suppress(OSError):  # only what is idle, where the kernel lets us
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # where the kernel groups processes by session, niceness counts within a session only; ours is our own
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")


def paint(request: dict[str, Any]) -> None:
    """Make the pictures of one movie (see `painter.Picture`); its folder appears when all are in it."""
    folder = Path(request["folder"])
    outputs = next((o for o in scan_results(Path(request["run_dir"])) if o.stem == request["stem"]), None)
    if outputs is None:
        raise NotFound("the aligned micrograph has gone.")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    make_thumbnail(outputs, part, request["pixel_size"] * request["binning"])
    if request["details"]:
        make_pictures(
            Path(request["source"]),
            Path(request["gain"]) if request["gain"] else None,
            outputs,
            part,
            pixel_size=request["pixel_size"],
            gain_rotation=request["gain_rotation"],
            gain_flip=request["gain_flip"],
        )
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


if __name__ == "__main__":
    main()
