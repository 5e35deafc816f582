"""The files of one run, linked under names that Scipion, RELION and shells can take."""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_FOLDER = "Inputs"
_NAMES = "names.json"


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
    Doing it again, also after a crash, gives the same.
    """
    folder = project / _FOLDER / key
    links = folder / "movies"
    links.mkdir(parents=True, exist_ok=True)
    for stem, name in movies.items():
        _link(links / f"{stem}{_ending(name)}", project / "data" / name)
    linked_gain = ""
    if gain:
        target = folder / f"gain{_ending(gain)}"
        _link(target, project / "data" / gain)
        linked_gain = str(target.relative_to(project))
    part = folder / f".{_NAMES}"
    part.write_text(json.dumps(dict(movies), indent=1))
    part.replace(folder / _NAMES)
    return LinkedInputs(str(links.relative_to(project)), "*", linked_gain)


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _link(link: Path, target: Path) -> None:
    """A relative link, which goes on working when the project is moved. Replaces an older one in one step."""
    fresh = link.with_name(f".{link.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    fresh.symlink_to(os.path.relpath(target, link.parent))
    fresh.replace(link)
