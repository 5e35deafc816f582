"""What people can do, free of HTTP: the pages and the API both call these.

Each action checks the rights that it needs. Errors: NotFound, PermissionDenied (Django's), InvalidInput with
messages by field, Conflict with what to end first.
"""

from scipion_cloud.portal.services.desktops import extend_desktop, open_desktop, stop_desktop
from scipion_cloud.portal.services.outputs import micrograph_response, run_log, run_star
from scipion_cloud.portal.services.people import add_member, invite, remove_member
from scipion_cloud.portal.services.projects import create_project, delete_project, rename_project
from scipion_cloud.portal.services.runs import cancel_run, start_run, with_movie_counts

__all__ = [
    "add_member",
    "cancel_run",
    "create_project",
    "delete_project",
    "extend_desktop",
    "invite",
    "micrograph_response",
    "open_desktop",
    "remove_member",
    "rename_project",
    "run_log",
    "run_star",
    "start_run",
    "stop_desktop",
    "with_movie_counts",
]
