"""Which movies of a project's data a run is on."""

from fnmatch import fnmatchcase

from scipion_cloud.errors import InvalidInput
from scipion_cloud.portal.uploads.files import Kind, list_data
from scipion_cloud.records.models import Project


def movie_names(project: Project, wanted: str = "") -> list[str]:
    """The movies in the project's data, in order of their names; only those of a folder or pattern `wanted`.

    Raises InvalidInput if there are none.
    """
    everything = [file.path for file in list_data(project) if file.kind is Kind.MOVIE]
    if not everything:
        raise InvalidInput(errors={"movies": "There are no movies in this project yet; upload some first."})
    folder = wanted.strip().rstrip("/")
    found = [
        name
        for name in everything
        if not folder or name.startswith(f"{folder}/") or fnmatchcase(name, folder)
    ]
    if not found:
        text = f"None of the {len(everything)} movies here is called like '{wanted}'."
        raise InvalidInput(errors={"movies": f"{text} Give a folder's name or a pattern as 'day1/*.tiff'."})
    return found
