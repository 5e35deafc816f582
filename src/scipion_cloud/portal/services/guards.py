"""What every action asks first."""

from django.core.exceptions import PermissionDenied

from scipion_cloud.errors import NotFound
from scipion_cloud.model import Role
from scipion_cloud.records.models import Project, User


def need(user: User, project: Project, role: Role) -> None:
    """Raise PermissionDenied unless `user` has at least `role` in the project."""
    if not project.allows(user, role):
        raise PermissionDenied(f"This needs the role '{role}' in the project; ask its owner.")


def lock(project: Project) -> None:
    """Hold the project's row until the transaction ends: nothing starts in a project that is being deleted.

    Raises NotFound if it has been deleted meanwhile.
    """
    if not Project.objects.select_for_update().filter(pk=project.pk, deleted=None).exists():
        raise NotFound("This project has been deleted.")
