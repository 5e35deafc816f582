"""What goes to a site: files of a folder at home, and the links among them as they have to be there.

Links are followed: the link goes, and what it leads to. A link out of the folder is refused, except into the
project's read-only source, whose files go to a folder of their own beside the project's.
"""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipion_cloud.errors import InvalidInput

_MOST_LINKS = 40  # on the way to one file, as the kernel has it


@dataclass(frozen=True)
class Tree:
    """A folder at home, its place below a site's area, and the regular files of it that go there."""

    root: Path
    place: str
    files: Mapping[str, int]  # path relative to the root -> bytes


@dataclass(frozen=True)
class Contents:
    """All that goes to a site for one job."""

    trees: tuple[Tree, ...]
    links: Mapping[str, str]  # path below the area -> what the link says there
    folders: tuple[str, ...] = ()  # below the area; those that hold nothing, and are expected all the same

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for tree in self.trees for size in tree.files.values())

    @property
    def count(self) -> int:
        """How many files there are."""
        return sum(len(tree.files) for tree in self.trees)

    def to_json(self) -> dict[str, Any]:
        """Fit for JSON."""
        trees = [{"root": str(t.root), "place": t.place, "files": dict(t.files)} for t in self.trees]
        return {"trees": trees, "links": dict(self.links), "folders": list(self.folders)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Contents":
        """What `to_json` made."""
        trees = tuple(Tree(Path(t["root"]), t["place"], t["files"]) for t in content["trees"])
        return cls(trees, content["links"], tuple(content["folders"]))


def collect(names: Iterable[str], root: Path, place: str, sources: Sequence[Path] = ()) -> Contents:
    """The files that these names lead to: relative to `root` or absolute; of a folder all that it holds.

    `place` is where the root is to be below the area; a source gets `place.source`, a second one
    `place.source2`. Raises InvalidInput for what lies elsewhere or is not there.
    """
    places = {root: place}
    for n, source in enumerate(sources, 1):
        places[source] = f"{place}.source{n if n > 1 else ''}"
    collector = _Collector(places)
    for name in names:
        collector.add(name, root)
    trees = tuple(
        Tree(r, p, collector.files[r]) for r, p in places.items() if r == root or collector.files[r]
    )
    return Contents(trees, collector.links, tuple(collector.folders))


class _Collector:
    """Paths are text here, not Path: what a link says counts, and there may be a million."""

    def __init__(self, places: Mapping[Path, str]) -> None:
        self.files: dict[Path, dict[str, int]] = {root: {} for root in places}
        self.links: dict[str, str] = {}
        self.folders: list[str] = []
        self._places = places
        self._names = {os.path.realpath(root): root for root in places} | {str(root): root for root in places}
        self._folders: dict[str, tuple[Path, str]] = {}  # resolved already

    def add(self, name: str, root: Path) -> None:
        """Add what a name leads to."""
        folder, _, last = name.rpartition("/")
        if not folder or last in ("", ".", ".."):
            at = self._resolve(name, root, "", name)
        else:
            if folder not in self._folders:
                self._folders[folder] = self._resolve(folder, root, "", name)
            at = self._resolve(last, *self._folders[folder], name)
        self._take(*at, name)

    def _take(self, root: Path, path: str, name: str) -> None:
        """Add a file, or all that a folder holds."""
        try:
            found = os.lstat(root / path)
        except (FileNotFoundError, NotADirectoryError):
            raise InvalidInput(f"{name!r} is needed, but it is not there any more.") from None
        if stat.S_ISREG(found.st_mode):
            self.files[root][path] = found.st_size
        elif stat.S_ISDIR(found.st_mode):
            with os.scandir(root / path) as scan:
                entries = list(scan)
            if not entries:
                self.folders.append(f"{self._places[root]}/{path}")
            for entry in entries:
                inner = f"{path}/{entry.name}" if path else entry.name
                if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
                    self._link(os.readlink(entry.path), root, path, entry.name, inner)  # noqa: PTH115
                else:
                    self._take(*self._resolve(entry.name, root, path, inner), inner)

    def _resolve(self, path: str, root: Path, folder: str, name: str) -> tuple[Path, str]:
        """Where a path seen from a folder of a root leads to; all links on the way are noted."""
        done, rest = (folder.split("/") if folder else []), path.split("/")[::-1]
        if path.startswith("/"):
            (root, rest), done = self._locate(path, name), []
        links = 0
        while rest:
            part = rest.pop()
            if part == ".." and not done:
                root, rest = self._locate(os.path.normpath("/".join((str(root.parent), *rest[::-1]))), name)
            elif part == "..":
                done.pop()
            elif part not in ("", "."):
                here = "/".join((*done, part))
                try:
                    text = os.readlink(root / here)  # noqa: PTH115
                except OSError:  # no link, or not there
                    done.append(part)
                    continue
                links += 1
                if links > _MOST_LINKS:
                    raise InvalidInput(f"{name!r} leads in circles.")
                self._link(text, root, "/".join(done), part, name)
                if text.startswith("/"):
                    (root, further), done = self._locate(text, name), []
                else:
                    further = text.split("/")[::-1]
                rest += further
        return root, "/".join(done)

    def _locate(self, path: str, name: str) -> tuple[Path, list[str]]:
        """An absolute path as a root and the parts below it, last part first. Raises InvalidInput."""
        for text, root in self._names.items():
            if f"{path}/".startswith(f"{text}/"):
                return root, path[len(text) :].split("/")[::-1]
        raise InvalidInput(
            f"{name!r} leads to {path!r}, outside of the project. Such files cannot be sent to another site: "
            "bring them into the project as copies, or run this at home."
        )

    def _link(self, text: str, root: Path, folder: str, called: str, name: str) -> None:
        """Note a link: what it says at the site is relative, and fits the places of there."""
        base = f"{root}/{folder}" if folder else str(root)
        whole = os.path.normpath(text if text.startswith("/") else f"{base}/{text}")
        place = f"{self._places[root]}/{folder}" if folder else self._places[root]
        if text.startswith("/") or not f"{whole}/".startswith(f"{root}/"):
            target, rest = self._locate(whole, name)
            text = os.path.relpath("/".join((self._places[target], *rest[::-1])), place)
        self.links[f"{place}/{called}"] = text
