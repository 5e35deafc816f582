"""The files of one run, linked under names that Scipion, RELION and shells can take."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from scipion_cloud.errors import InvalidInput

_FOLDER = "Inputs"
_NAMES = "names.json"
_SAFE = re.compile(r"[A-Za-z0-9_-]+")
_ENDING = re.compile(r"\.[a-z0-9]{1,8}")  # programs get the links' names through a shell


@dataclass(frozen=True)
class LinkedInputs:
    """Where a run finds its files; paths are relative to the project."""

    folder: str
    pattern: str
    gain: str = ""


def link_inputs(project: Path, key: str, movies: Mapping[str, str], gain: str = "") -> LinkedInputs:
    """Make `Inputs/<key>/movies/` with a relative link `<stem>.<ending>` to each movie, and the
    gain reference beside it.

    `movies` maps safe stems to paths in the project's data folder; `names.json` keeps that map for people.
    Doing it again, also after a crash, gives the same: whatever else stands among the links is removed, since
    Scipion would import it. Raises InvalidInput for a file that is not in the data folder, or if a link was
    put in the place of a folder.
    """
    if odd := [name for name in (key, *movies) if not _SAFE.fullmatch(name)]:
        raise InvalidInput(f"{odd[0]!r} is not a name for a run or a movie in it; use letters and digits.")
    data, folder = project / "data", project / _FOLDER / key
    wanted = {f"{stem}{_ending(name)}": _source(data, name) for stem, name in movies.items()}
    links = _own_folder(project, _FOLDER, key, "movies")
    for name, target in wanted.items():
        _link(links / name, target)
    for other in links.iterdir():
        if other.name not in wanted:
            shutil.rmtree(other) if other.is_dir() and not other.is_symlink() else other.unlink()
    linked_gain = ""
    if gain:
        link = folder / f"gain{_ending(gain)}"
        _link(link, _source(data, gain))
        linked_gain = str(link.relative_to(project))
    part = folder / f".{_NAMES}"
    part.write_text(json.dumps(dict(movies), indent=1))
    part.replace(folder / _NAMES)
    return LinkedInputs(str(links.relative_to(project)), "*", linked_gain)


def _own_folder(project: Path, *names: str) -> Path:
    """A folder below the project, made if it is missing; none on the way to it is a link."""
    folder = project
    for name in names:
        folder = folder / name
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise InvalidInput(
                f"{folder.name} in this project must be a folder; remove what is in its place."
            )
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _source(data: Path, name: str) -> Path:
    """Where the file `name` of the data folder is."""
    path = data / name
    if not path.resolve().is_relative_to(data.resolve()) or ".." in PurePosixPath(name).parts:
        raise InvalidInput(f"{name!r} is not a file in this project's data folder; choose another one.")
    if not path.is_file():
        raise InvalidInput(f"{name} does not exist any more. Upload it again.")
    return path


def _ending(name: str) -> str:
    ending = PurePosixPath(name).suffix.lower()
    if not _ENDING.fullmatch(ending):
        raise InvalidInput(f"{name!r} must end in letters that tell its format, as .mrc. Rename the file.")
    return ending


def _link(link: Path, target: Path) -> None:
    """A relative link, which goes on working when the project is moved. Replaces an older one in one step."""
    fresh = link.with_name(f".{link.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    fresh.symlink_to(os.path.relpath(target, link.parent))
    fresh.replace(link)
