"""Django's description of this room."""

from django.apps import AppConfig


class PortalConfig(AppConfig):
    """The pages and the HTTP API."""

    name = "scipion_cloud.portal"
    label = "portal"
