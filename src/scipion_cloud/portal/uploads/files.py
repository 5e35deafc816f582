"""The files of a project's data folder, as people see them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath

from scipion_cloud.errors import InvalidInput
from scipion_cloud.portal.uploads.folder import DataFolder
from scipion_cloud.portal.uploads.names import PARTS, human, show
from scipion_cloud.records.models import Project, Upload

_MOVIES = {".mrc", ".mrcs", ".tif", ".tiff", ".eer"}


class Kind(StrEnum):
    """What a file is good for, by its name."""

    MOVIE = "movie"
    GAIN = "gain"
    OTHER = "other"


@dataclass(frozen=True)
class DataFile:
    """One file. `path` is relative to the data folder, with surrogates for bytes that are not UTF-8."""

    path: str
    size: int  # bytes
    modified: datetime
    kind: Kind

    @property
    def name(self) -> str:
        """The path as it can be shown: one line, odd bytes as \\xNN."""
        return show(self.path)

    @property
    def size_text(self) -> str:
        """The size with its unit."""
        return human(self.size)


def kind_of(path: str) -> Kind:
    """A guess from the name: `gain` in it makes a gain reference of what would be a movie."""
    name = PurePosixPath(path.lower())
    if name.suffix == ".gain":
        return Kind.GAIN
    if name.suffix not in _MOVIES:
        return Kind.OTHER
    return Kind.GAIN if "gain" in name.name else Kind.MOVIE


def list_data(project: Project) -> list[DataFile]:
    """The regular files of the data folder, by name. Links and unfinished parts are left out."""
    with DataFolder(project) as folder:
        found = folder.scan().files
    return [
        DataFile(path, file.size, datetime.fromtimestamp(file.modified, UTC), kind_of(path))
        for path, file in sorted(found.items())
    ]


def delete_file(project: Project, path: str) -> None:
    """Delete one file, given by its path or by the name shown. Raises NotFound, Conflict or InvalidInput."""
    with DataFolder(project) as folder:
        files = folder.scan().files
        real = path if path in files else next((f for f in files if show(f) == path), path)
        if real.split("/")[0] == PARTS:
            raise InvalidInput("Parts of unfinished uploads are not deleted here; forget the upload instead.")
        folder.delete(real)
    Upload.objects.filter(project=project, path=show(real)).delete()
