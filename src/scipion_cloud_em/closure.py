"""What a protocol's run needs of its project, so that it can run where the rest of the project is not.

- its own run folder;
- of each input: the files that the object or its database names, and those that stand behind it (the
  micrographs of coordinates). Behind particles stand coordinates and micrographs, which only a protocol that
  asks for coordinates reads: of these the databases are enough for all others;
- of an input that is a protocol: its whole run folder, and of its own inputs all but the images of sets;
- of a protocol that is continued: its folder, and its inputs as if they were ours.
"""

import os
import sqlite3
from pathlib import Path

import pyworkflow as pw
from pyworkflow.object import Pointer, Set, String
from pyworkflow.project import Project
from pyworkflow.protocol import LegacyProtocol, Protocol
from pyworkflow.protocol.params import FolderParam, PathParam

from scipion_cloud_em.projects import ProjectError
from scipion_cloud_em.references import file_of, is_database, named_in, tree

_EVERYWHERE = {"pwem", "pyworkflow", "scipion_cloud_em"}


def closure(path: Path, protocol: int, run_db: str) -> dict:
    """The files that protocol number `protocol` needs, by the database of its run (`Runs/.../logs/run.db`).

    Returns {"files": paths as the project names them: relative to it, or absolute, "packages": Scipion
    plugins that it is made of, "protocol_class", "label"}. Raises ProjectError.
    """
    project = Project(pw.Config.getDomain(), str(path))
    project.load(dbPath=run_db, loadAllConfig=False)
    try:
        run = project.getProtocol(protocol)
        if run is None or isinstance(run, LegacyProtocol):
            raise ProjectError(f"Scipion here does not know protocol {protocol} of {path.name}.")
        needs = _Needs(path)
        needs.of_run(run)
        return {
            "files": sorted(needs.files),
            "packages": sorted(needs.packages - _EVERYWHERE),
            "protocol_class": run.getClassName(),
            "label": run.getRunName(),
        }
    finally:
        project.closeMapper()


class _Needs:
    """Collects what is needed; each object is looked at once for its data and once for its databases."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: set = set()
        self.packages: set = set()
        self._seen: set = set()

    def of_run(self, run) -> None:
        """The folder and the inputs of the protocol that is to run."""
        self._folder(run)
        self._inputs(run)
        for name, param in run.getDefinition().iterAllParams():
            value = getattr(run, name, None)
            text = str(value.get() or "") if isinstance(param, PathParam) and value is not None else ""
            if text and run.evalParamCondition(name):
                self._chosen(text, isinstance(param, FolderParam))

    def _inputs(self, run, data: bool = True) -> None:
        for name, pointer in run.iterInputAttributes():
            target = pointer.get()
            if isinstance(target, Protocol):
                self._protocol(target, continued=data and "continue" in name.lower(), deep=data)
            elif target is not None:
                self._object(target, data, behind=data and "coord" in name.lower())

    def _protocol(self, run, continued: bool, deep: bool) -> None:
        if (run.getObjId(), continued, deep) in self._seen:
            return
        self._seen.add((run.getObjId(), continued, deep))
        self._folder(run)
        if continued or deep:
            self._inputs(run, data=continued)

    def _folder(self, run) -> None:
        self.packages.add(type(run).__module__.partition(".")[0])
        if run.getWorkingDir():
            self.files.update(tree(run.getWorkingDir(), self.root))

    def _object(self, target, data: bool, behind: bool) -> None:
        """An object's files; `data`: also what its database names, `behind`: and that of what it is from."""
        key = (target.getObjId() or id(target), data, behind)
        if key in self._seen:
            return
        self._seen.add(key)
        self.packages.add(type(target).__module__.partition(".")[0])
        single = not isinstance(target, Set)
        if not single:
            self._file(target.getFileName() or "", data)
        for attribute in _leaves(target):
            if isinstance(attribute, String):
                for text in str(attribute.get() or "").split(","):  # half maps share one attribute
                    self._file(text, data or single)
            elif isinstance(attribute, Pointer) and (further := attribute.get()) is not None:
                origin = data and (behind or not _has_images(target))
                self._object(further, origin, behind)

    def _file(self, text: str, data: bool) -> None:
        path = file_of(text, self.root)
        if not path:
            return
        self.files.add(path)
        if is_database(path) and (path, data) not in self._seen:
            self._seen.add((path, data))
            for further in self._named(path):
                if data or is_database(further):
                    self._file(further, data)

    def _named(self, path: str) -> set:
        try:
            return {file for text in named_in(self.root / path) if (file := file_of(text, self.root))}
        except sqlite3.Error as e:
            raise ProjectError(f"{path} cannot be read ({e}); is it whole?") from e

    def _chosen(self, text: str, folder: bool) -> None:
        """A file or folder that a person has chosen in the form."""
        if folder and os.path.isdir(self.root / text):  # noqa: PTH112
            self.files.update(tree(text, self.root))
        elif path := file_of(text if "/" in text else f"./{text}", self.root):
            self._file(path if "/" in path else f"./{path}", data=True)


def _leaves(target):
    """All attributes of an object that hold no others."""
    for _name, attribute in target.getAttributes():
        if isinstance(attribute, String | Pointer):
            yield attribute
        elif not isinstance(attribute, Protocol):
            yield from _leaves(attribute)


def _has_images(target) -> bool:
    """Whether an object brings its own images: it is not read with those that it was cut from."""
    return "Particle" in target.getClassName() or "Class" in target.getClassName()
