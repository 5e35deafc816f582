"""What every action asks first."""

from django.core.exceptions import PermissionDenied

from scipion_cloud.config import get_config
from scipion_cloud.controller.protocols import protocols
from scipion_cloud.errors import Conflict, NotFound
from scipion_cloud.jobs import backend_for
from scipion_cloud.model import LIVE_DESKTOPS, LIVE_RUNS, Role
from scipion_cloud.records.models import Project, User


def need(user: User, project: Project, role: Role) -> None:
    """Raise PermissionDenied unless `user` has at least `role` in the project."""
    if not project.allows(user, role):
        raise PermissionDenied(f"This needs the role '{role}' in the project; ask its owner.")


def need_open(project: Project) -> None:
    """Raise Conflict unless people can work in the project now."""
    if not project.is_prepared:
        raise Conflict("The files of this project are not here yet; its page tells how far they have come.")
    if not project.is_open:
        raise Conflict("This project is not open. Open it on its page, and work when its files are here.")


def at_work(project: Project) -> str:
    """What is going on in the project now: "2 runs and the desktop"; empty if nothing is."""
    runs = project.runs.filter(state__in=LIVE_RUNS).count()
    found = ["a run" if runs == 1 else f"{runs} runs"] if runs else []
    if not runs and (left := len(protocols(project, backend_for(get_config())))):
        found.append("a protocol of the desktop" if left == 1 else f"{left} protocols of the desktop")
    if project.desktops.filter(state__in=LIVE_DESKTOPS).exists():
        found.append("the desktop")
    return " and ".join(found)


def lock(project: Project) -> None:
    """Hold the project's row until the transaction ends: nothing starts in a project that is being deleted.

    Raises NotFound if it has been deleted meanwhile.
    """
    if not Project.objects.select_for_update().filter(pk=project.pk, deleted=None).exists():
        raise NotFound("This project has been deleted.")
