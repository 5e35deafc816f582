"""What we change in Scipion, and why; Scipion imports this plugin in each of its processes.

Each patch keeps the signature and the meaning of what it replaces.
"""

import os
import sys
import time
from pathlib import Path

import pyworkflow.utils as pwutils
from pyworkflow.constants import PROJECT_DBNAME
from pyworkflow.protocol.executor import StepExecutor

from scipion_cloud_em.movie_patches import apply_movie_patches, first_ready
from scipion_cloud_em.sqlite_files import copy_database

_original_copy_file = pwutils.copyFile
_original_move_file = pwutils.moveFile
_original_link = pwutils.createAbsLink


def apply_patches() -> None:
    """Replace the functions below wherever a module has taken them by name."""
    for original, ours in (
        (_original_copy_file, copy_file),
        (_original_move_file, move_file),
        (_original_link, link_inside_project),
    ):
        for module in list(sys.modules.values()):
            names = getattr(module, "__dict__", {})
            if names.get(original.__name__) is original and module.__name__ != __name__:
                setattr(module, original.__name__, ours)
    StepExecutor.runSteps = run_steps
    apply_movie_patches()


def copy_file(source, dest):
    """`shutil.copy`, except for databases: each launch copies the project's while others write to it."""
    if str(source).endswith((".sqlite", ".db")) and not Path(dest).is_dir():
        copy_database(Path(source), Path(dest))
    else:
        _original_copy_file(source, dest)


def move_file(source, dest):
    """Rename where Scipion would copy and delete: a micrograph has hundreds of megabytes."""
    if Path(source).is_symlink() or Path(dest).is_dir():
        return _original_move_file(source, dest)
    try:
        Path(source).replace(dest)
    except OSError:  # another file system
        _original_move_file(source, dest)


def link_inside_project(source, dest):
    """A relative link where both ends lie in one project, so that it survives a move; else absolute."""
    folder = Path(os.path.realpath(Path(dest).parent))
    root = next((p for p in (folder, *folder.parents) if (p / PROJECT_DBNAME).exists()), None)
    path = Path(os.path.abspath(source))  # noqa: PTH100 - the link itself, not what it points to
    if root is not None and not path.is_relative_to(root):  # the project itself may be reached by a link
        path = Path(os.path.realpath(path.parent)) / path.name
    if root is None or not path.is_relative_to(root):
        return _original_link(source, dest)
    link = Path(dest)
    if link.is_symlink():
        link.unlink()
    if link.exists():
        raise FileExistsError(f"{dest} exists and is not a link")
    link.symlink_to(os.path.relpath(path, folder))


def run_steps(self, steps, stepStartedCallback, stepFinishedCallback, stepsCheckCallback, stepsCheckSecs=3):
    """Run steps in order, as Scipion does, but look for what unblocks a waiting step before sleeping.

    The last step of a streaming protocol waits for a check that registers the last output; Scipion
    sleeps for seconds before it makes that check.
    """
    last_check = time.monotonic()
    while True:
        if ready := first_ready(self, steps):
            step = ready[0]
            step.setRunning()
            stepStartedCallback(step)
            step.run()
            if not stepFinishedCallback(step):
                break
        elif self._arePending(steps):
            stepsCheckCallback()
            last_check = time.monotonic()
            if not self._getRunnable(steps) and self._arePending(steps):
                time.sleep(3)
        else:
            break
        if time.monotonic() - last_check > stepsCheckSecs:
            stepsCheckCallback()
            last_check = time.monotonic()
    stepsCheckCallback()  # what the last step brought
