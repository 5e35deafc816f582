"""Deployments: projects that are open, and those that were."""

import uuid
from datetime import datetime, timedelta
from pathlib import Path

from django.db import models
from django.utils import timezone

from scipion_cloud.config import get_config
from scipion_cloud.deployments.states import Phase
from scipion_cloud.records.fields import LogJson, LogText
from scipion_cloud.records.models.people import User
from scipion_cloud.records.models.projects import Project

ENDED = [phase.value for phase in (Phase.RELEASED, Phase.FAILED)]
WARNING = timedelta(minutes=30)  # before the deadline


class Deployment(models.Model):
    """One project open here until a deadline. Its agent's word is the truth; this row follows it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="deployments")
    user = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    phase = models.CharField(
        max_length=12, choices=[(p.value, p.value) for p in Phase], default=Phase.LOCKING.value
    )
    status = LogJson(default=dict)  # what the agent last told, as deployments.AgentStatus has it
    message = LogText(blank=True)  # why it failed or waits
    close_requested = models.BooleanField(default=False)
    import_legacy = models.BooleanField(default=False)  # what a predecessor left there becomes generation 1
    take_over = models.TextField(blank=True)  # why the lock of somebody else may be broken, if it may
    start_generation = models.PositiveIntegerField(null=True)  # an older one to begin with
    deadline = models.DateTimeField()
    job_id = models.BigIntegerField(null=True)
    attempt = models.PositiveIntegerField(default=1)  # jobs so far; an agent that was killed gets another
    not_before = models.DateTimeField(null=True)  # of the next attempt
    generation = models.PositiveIntegerField(null=True)  # last saved
    last_saved = models.DateTimeField(null=True)
    created = models.DateTimeField(auto_now_add=True)
    ready = models.DateTimeField(null=True)
    ended = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created"]
        constraints = [
            models.UniqueConstraint(
                fields=["project"],
                condition=~models.Q(phase__in=[Phase.RELEASED.value, Phase.FAILED.value]),
                name="one_live_deployment",
            )
        ]

    @property
    def state(self) -> Phase:
        """The phase as a value with behaviour."""
        return Phase(self.phase)

    @property
    def words(self) -> str:
        """The phase as people read it."""
        return self.phase.replace("_", " ")

    @property
    def path(self) -> Path:
        """The agent's state: its index, journal, socket and log."""
        return get_config().agents / self.project.folder

    @property
    def is_live(self) -> bool:
        """Whether it still has a lock or a working copy to take care of."""
        return self.phase not in ENDED

    @property
    def is_usable(self) -> bool:
        """Whether people can work in the project."""
        return self.state.is_open and not self.close_requested

    @property
    def seconds_left(self) -> float:
        """Until the deadline."""
        return (self.deadline - timezone.now()).total_seconds()

    @property
    def is_short(self) -> bool:
        """Whether people have to be warned that the time is nearly over."""
        return self.is_usable and self.deadline - timezone.now() < WARNING

    def began_at(self) -> datetime:
        """When people could begin to work, or when it was asked for."""
        return self.ready or self.created
