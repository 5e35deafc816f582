"""Who may upload: an editor of the project, from our own pages or with an API token."""

from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import close_old_connections
from django.http.request import validate_host
from starlette.requests import Request

from scipion_cloud.errors import NotFound, ScipionCloudError
from scipion_cloud.model import Role
from scipion_cloud.portal.rights import bearer_of, project_for, user_of
from scipion_cloud.portal.services.guards import need_open
from scipion_cloud.records.models import Project, User


class Forbidden(ScipionCloudError):
    """Known, but not allowed to do this, or not from there."""


@dataclass(frozen=True)
class Access:
    """An editor and the project."""

    user: User
    project: Project


async def access(request: Request) -> Access:
    """Who is asking, for which project. Raises NotFound for strangers, Forbidden for others."""
    if request.method != "HEAD" and not bearer_of(request) and not _from_our_pages(request):
        raise Forbidden("This request came from another site's page; open the project here and try again.")
    user = await user_of(request)
    if user is None:
        raise NotFound("There is no such project, or you are not signed in. Sign in again, then go on.")
    return await _editor(user, request.path_params["project_id"])


@sync_to_async
def _editor(user: User, project_id: UUID) -> Access:
    close_old_connections()
    try:
        project = project_for(user, project_id, Role.EDITOR)
        need_open(project)
        return Access(user, project)
    except PermissionDenied as e:
        raise Forbidden(str(e)) from e


def _from_our_pages(request: Request) -> bool:
    """A cookie is sent by any page; what tells ours from others is written by the browser itself."""
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site") == "same-origin"
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    parts = urlsplit(origin)
    ours = parts.netloc == request.headers.get("host") and parts.scheme in ("http", "https")
    return ours and validate_host(parts.hostname or "", settings.ALLOWED_HOSTS)
