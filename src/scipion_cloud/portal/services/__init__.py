"""What people can do, free of HTTP: the pages and the API both call these.

Each action checks the rights that it needs. Errors: NotFound, PermissionDenied (Django's), InvalidInput with
messages by field, Conflict with what to end first.
"""

from scipion_cloud.portal.services.copies import Origin, archives, can_be_copied, copy_again, copy_project
from scipion_cloud.portal.services.deployments import (
    close_project,
    confirm_deletions,
    discard_work,
    expectation,
    extend_project,
    go_back,
    history,
    open_project,
    save_now,
    unsaved,
)
from scipion_cloud.portal.services.desktops import extend_desktop, open_desktop, stop_desktop
from scipion_cloud.portal.services.guards import at_work
from scipion_cloud.portal.services.outputs import micrograph_response, run_log, run_star
from scipion_cloud.portal.services.people import add_member, invite, remove_member
from scipion_cloud.portal.services.projects import (
    adopt_project,
    create_project,
    delete_project,
    rename_project,
)
from scipion_cloud.portal.services.runs import cancel_run, start_run, with_movie_counts
from scipion_cloud.portal.services.sites import (
    all_sites,
    currency,
    drain_site,
    elastic_nodes,
    one_site,
    resume_site,
)
from scipion_cloud.portal.services.storages import (
    Place,
    connect_storage,
    connection_for,
    connections_of,
    folders_in,
    forget_storage,
    look_inside,
    onedata_spaces,
)
from scipion_cloud.portal.services.where import SiteOffer, choice, has_choice, site_label

__all__ = [
    "Origin",
    "Place",
    "SiteOffer",
    "add_member",
    "adopt_project",
    "all_sites",
    "archives",
    "at_work",
    "can_be_copied",
    "cancel_run",
    "choice",
    "close_project",
    "confirm_deletions",
    "connect_storage",
    "connection_for",
    "connections_of",
    "copy_again",
    "copy_project",
    "create_project",
    "currency",
    "delete_project",
    "discard_work",
    "drain_site",
    "elastic_nodes",
    "expectation",
    "extend_desktop",
    "extend_project",
    "folders_in",
    "forget_storage",
    "go_back",
    "has_choice",
    "history",
    "invite",
    "look_inside",
    "micrograph_response",
    "one_site",
    "onedata_spaces",
    "open_desktop",
    "open_project",
    "remove_member",
    "rename_project",
    "resume_site",
    "run_log",
    "run_star",
    "save_now",
    "site_label",
    "start_run",
    "stop_desktop",
    "unsaved",
    "with_movie_counts",
]
