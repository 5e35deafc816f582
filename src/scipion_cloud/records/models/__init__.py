"""The tables, one small file each subject."""

from scipion_cloud.records.models.deployments import Deployment
from scipion_cloud.records.models.desktops import Desktop, DesktopTicket
from scipion_cloud.records.models.people import ApiToken, SignInLink, User
from scipion_cloud.records.models.preparations import Preparation, Preparing
from scipion_cloud.records.models.projects import Membership, Project
from scipion_cloud.records.models.runs import Movie, Run
from scipion_cloud.records.models.storages import StorageConnection
from scipion_cloud.records.models.uploads import Upload

__all__ = [
    "ApiToken",
    "Deployment",
    "Desktop",
    "DesktopTicket",
    "Membership",
    "Movie",
    "Preparation",
    "Preparing",
    "Project",
    "Run",
    "SignInLink",
    "StorageConnection",
    "Upload",
    "User",
]
