"""The tables, one small file each subject."""

from scipion_cloud.records.models.desktops import Desktop, DesktopTicket
from scipion_cloud.records.models.people import ApiToken, SignInLink, User
from scipion_cloud.records.models.projects import Membership, Project
from scipion_cloud.records.models.runs import Movie, Run
from scipion_cloud.records.models.uploads import Upload

__all__ = [
    "ApiToken",
    "Desktop",
    "DesktopTicket",
    "Membership",
    "Movie",
    "Project",
    "Run",
    "SignInLink",
    "Upload",
    "User",
]
