"""Files that a person announced or sent."""

import uuid

from django.db import models
from django.db.models import F

from scipion_cloud.records.models.people import User
from scipion_cloud.records.models.projects import Project


class Upload(models.Model):
    """One file of a project's data folder: announced, on its way, or whole.

    How much has arrived is the size of the part file, not a column: the disk is the truth.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="uploads")
    path = models.CharField(max_length=1024)  # relative to the data folder, with forward slashes
    size = models.BigIntegerField()  # bytes
    user = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    created = models.DateTimeField(auto_now_add=True)
    finished = models.DateTimeField(null=True)

    class Meta:
        ordering = [F("path").asc()]
        constraints = [models.UniqueConstraint(fields=["project", "path"], name="one_upload_a_path")]
