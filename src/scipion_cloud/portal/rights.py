"""Who is asking, and what they may see. Other people's projects do not exist for a stranger."""

import uuid
from importlib import import_module

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.core.exceptions import PermissionDenied
from django.db import close_old_connections
from django.utils.crypto import constant_time_compare
from starlette.requests import HTTPConnection

from scipion_cloud.errors import NotFound
from scipion_cloud.model import Role
from scipion_cloud.records.models import ApiToken, Project, User


def project_for(user: User, project_id: uuid.UUID, role: Role = Role.VIEWER) -> Project:
    """The project, if `user` has at least `role` in it.

    Raises NotFound if it is not there or not the user's business, PermissionDenied if the role is too low.
    """
    project = Project.objects.visible_to(user).filter(pk=project_id).first()
    if project is None:
        raise NotFound("There is no such project, or you are not a member of it.")
    if not project.allows(user, role):
        raise PermissionDenied(f"This needs the role '{role}' in the project; ask its owner.")
    return project


def bearer_of(connection: HTTPConnection) -> str:
    """The API token that a connection carries; empty without one."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


@sync_to_async
def user_of(connection: HTTPConnection) -> User | None:
    """The person behind a connection that Django's middleware does not see, by token or session cookie."""
    close_old_connections()  # a database that was restarted would else refuse us for ever
    if token := bearer_of(connection):
        return ApiToken.user_of(token)
    cookie = connection.cookies.get(settings.SESSION_COOKIE_NAME)
    return _user_of_session(cookie) if cookie else None


def _user_of_session(key: str) -> User | None:
    session = import_module(settings.SESSION_ENGINE).SessionStore(key)
    if session.get(BACKEND_SESSION_KEY) not in settings.AUTHENTICATION_BACKENDS:
        return None
    user = User.objects.filter(pk=session.get(SESSION_KEY), is_active=True).first()
    # a changed password ends the sessions that were opened with the old one, as in Django's own middleware
    if user and constant_time_compare(session.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash()):
        return user
    return None
