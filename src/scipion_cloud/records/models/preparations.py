"""New projects whose files are being brought: copies of other projects, and unpacked archives."""

from enum import StrEnum
from pathlib import Path

from django.db import models

from scipion_cloud.config import get_config
from scipion_cloud.records.fields import LogJson, LogText
from scipion_cloud.records.models.people import User
from scipion_cloud.records.models.projects import Project


class Preparing(StrEnum):
    """Where a preparation stands."""

    COPYING = "copying"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"  # the new project was deleted meanwhile


class Preparation(models.Model):
    """Where the files of a project come from, and how far they have come. It stays as its origin."""

    project = models.OneToOneField(Project, on_delete=models.CASCADE, related_name="preparation")
    user = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    original = models.ForeignKey(Project, on_delete=models.SET_NULL, null=True, related_name="+")
    archive = LogText(blank=True)  # its path in the original's data folder; empty: the original is copied
    generation = models.PositiveIntegerField(null=True)  # of the original; None: as it is now
    deployment = models.UUIDField(null=True)  # of the original, whose working copy is read
    state = models.CharField(
        max_length=10, choices=[(s.value, s.value) for s in Preparing], default=Preparing.COPYING.value
    )
    message = LogText(blank=True)  # why it failed or waits
    status = LogJson(default=dict)  # what the job last told, as copies.Report writes it
    job_id = models.BigIntegerField(null=True)
    attempt = models.PositiveIntegerField(
        default=1
    )  # jobs so far; one that was killed is followed by another
    not_before = models.DateTimeField(null=True)  # of the next attempt
    created = models.DateTimeField(auto_now_add=True)
    ended = models.DateTimeField(null=True)

    @property
    def path(self) -> Path:
        """The folder of its job: order, report, log."""
        return get_config().copies / self.project.folder

    @property
    def is_done(self) -> bool:
        """Whether all is there."""
        return self.state == Preparing.DONE

    @property
    def origin(self) -> str:
        """What it is made of, in words."""
        if self.archive:
            return f"the archive {self.archive}"
        return f"the project {self.original.name}" if self.original else "a project that is gone"
