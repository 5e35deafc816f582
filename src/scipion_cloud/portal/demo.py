"""The demo: a project with example movies, and My Movie Alignment at work on them."""

from scipion_cloud.examples import MovieSpec
from scipion_cloud.portal import services
from scipion_cloud.records.models import Run, User

NAME = "Demo: ribosomes"
DESCRIPTION = (
    "Movies of ribosomes in ice from the simulator that comes with Scipion Cloud, whose drift is known. "
    "Look at the run, start another with other values, open the desktop: nothing here can be broken."
)


def make_demo(user: User) -> Run:
    """The demo run of this user: the one that there is, or a new one in a project made for it.

    Takes some seconds when the project must be made. Raises BridgeError if Scipion could not make it.
    """
    project = user.owned_projects.filter(name=NAME, deleted=None).order_by("created").first()
    if project is None:
        project = services.create_project(user, NAME, DESCRIPTION, demo=True)
    run = project.runs.order_by("created").first()
    if run is None:
        run = services.start_run(user, project, "movie-alignment", _parameters(), label="Demo")
    return run


def _parameters() -> dict[str, object]:
    """What a microscopist would type for the example movies."""
    spec = MovieSpec()
    return {
        "pixel_size": spec.pixel_size,
        "voltage": spec.voltage,
        "cs": spec.cs,
        "amplitude_contrast": spec.amplitude_contrast,
        "dose_per_frame": spec.dose_per_frame,
        "gain": "gain.mrc",
    }
