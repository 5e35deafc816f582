"""Django's description of this room."""

from django.apps import AppConfig


class RecordsConfig(AppConfig):
    """The tables of Scipion Cloud."""

    name = "scipion_cloud.records"
    label = "records"
    default_auto_field = "django.db.models.BigAutoField"
