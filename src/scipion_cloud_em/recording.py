"""What a protocol would run for each of its movies, found by having it prepare them without running it."""

import logging
import os
import tempfile
from pathlib import Path

from pyworkflow.protocol import getProtocolFromDb
from pyworkflow.protocol.executor import StepExecutor
from pyworkflow.utils import process

from scipion_cloud_em.movie_patches import find_gain, original_step


class _NotNowError(Exception):
    """In place of running a command; a protocol that goes on with its other movies swallows it."""


def commands(path: Path, db: str, protocol_id: int) -> dict:
    """The commands for a launched protocol's movies, with what they need, except for those that are finished.

    For a child of its own: the protocol is not fit for anything else afterwards. Returns {"movies": [{"name",
    "command", "folder", "folders", "files", "links"}], "env": {name: value}}: the folder that each is to run
    in, with what there has to be in it, and what it needs beyond this process's environment.
    """
    logging.disable()  # it will say that each has failed
    protocol = getProtocolFromDb(str(path), db, protocol_id, chdir=True)
    protocol.setStepsExecutor(StepExecutor(protocol.getHostConfig()))
    if protocol.validate():  # the run itself will say so
        return {"movies": [], "env": {}}
    found: list = []
    used: dict = {}

    def note(command, env=None, cwd=None, executable=None):  # noqa: ARG001 - as Scipion calls it
        folder = Path(cwd).absolute()
        found.append({"name": folder.name, "command": command, "folder": str(folder), **_content(folder)})
        used.update(env or {})
        raise _NotNowError

    process.runCommand = note
    finished = protocol._getMovieDone
    find_gain(protocol)
    with tempfile.TemporaryDirectory() as folder:
        protocol._getMovieDone = lambda _movie: os.path.join(folder, "done")  # noqa: PTH118 - as Scipion has it
        movies = [movie.clone() for movie in protocol.inputMovies.get()]
        for movie in movies:
            if not Path(finished(movie)).exists():
                original_step(protocol, movie.getObjDict(includeBasic=True), movie.hasAlignment())
    return {"movies": found, "env": {k: v for k, v in used.items() if os.environ.get(k) != v}}


def _content(folder: Path) -> dict:
    """What a movie's folder has before its command runs; whoever runs that makes it again."""
    folders, files, links = [], {}, {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            links[name] = os.readlink(path)  # noqa: PTH115 - the text
        elif path.is_dir():
            folders.append(name)
        else:
            files[name] = path.read_text()
    return {"folders": folders, "files": files, "links": links}
