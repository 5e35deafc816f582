"""Asking for a desktop, and for its end."""

from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from scipion_cloud.config import get_config
from scipion_cloud.controller.desktops import start_desktop
from scipion_cloud.errors import Conflict
from scipion_cloud.model import LIVE_DESKTOPS, DesktopState, Role
from scipion_cloud.portal.services.guards import lock, need, need_open
from scipion_cloud.records.models import Desktop, Project, User


def open_desktop(user: User, project: Project) -> Desktop:
    """The desktop of the project that is open, or a new one.

    There is one at a time: two Scipion windows would overwrite each other's view of the project. Raises
    PermissionDenied unless `user` is an editor, Conflict while the last one is being stopped.
    """
    need(user, project, Role.EDITOR)
    with transaction.atomic():
        lock(project)
        need_open(project)
        live = project.desktops.filter(state__in=LIVE_DESKTOPS).first()
        desktop = live or Desktop.objects.create(project=project, user=user, deadline=_deadline())
    if live is None:
        start_desktop(desktop)  # now, not at the controller's next look: somebody is waiting
    elif live.stop_requested or live.status is DesktopState.STOPPING:
        raise Conflict("The desktop of this project is just closing; open it again in a few seconds.")
    return desktop


def extend_desktop(user: User, desktop: Desktop) -> Desktop:
    """Start its time afresh. Raises PermissionDenied unless `user` is editor, Conflict once it has ended."""
    need(user, desktop.project, Role.EDITOR)
    open_ones = Desktop.objects.filter(pk=desktop.pk, state__in=LIVE_DESKTOPS, stop_requested=False)
    if not open_ones.update(deadline=_deadline()):
        raise Conflict("This desktop has ended; open a new one.")
    desktop.refresh_from_db()
    return desktop


def stop_desktop(user: User, desktop: Desktop) -> Desktop:
    """Ask for its end; protocols that it launched go on. Raises PermissionDenied unless `user` is editor."""
    need(user, desktop.project, Role.EDITOR)
    Desktop.objects.filter(pk=desktop.pk, state__in=LIVE_DESKTOPS).update(stop_requested=True)
    desktop.refresh_from_db()
    return desktop


def _deadline() -> datetime:
    return timezone.now() + timedelta(hours=get_config().desktop_hours)
