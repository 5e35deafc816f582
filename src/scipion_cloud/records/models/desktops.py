"""Desktops and the tickets that open them."""

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Self

from django.db import models
from django.utils import timezone

from scipion_cloud.config import get_config
from scipion_cloud.model import DesktopState
from scipion_cloud.records.fields import LogText
from scipion_cloud.records.models.people import User
from scipion_cloud.records.models.projects import Project
from scipion_cloud.records.secrets import digest, new_secret


class Desktop(models.Model):
    """An X session with Scipion in it, on one project, until a deadline."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="desktops")
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    state = models.CharField(
        max_length=10, choices=[(s.value, s.value) for s in DesktopState], default=DesktopState.STARTING.value
    )
    stop_requested = models.BooleanField(default=False)
    job_id = models.BigIntegerField(null=True)
    message = LogText(blank=True)
    created = models.DateTimeField(auto_now_add=True)
    ready = models.DateTimeField(null=True)
    deadline = models.DateTimeField()
    ended = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created"]

    @property
    def status(self) -> DesktopState:
        """The state as a value with behaviour."""
        return DesktopState(self.state)

    @property
    def path(self) -> Path:
        """Folder of this desktop's socket, settings and logs."""
        return get_config().desktops / self.id.hex


class DesktopTicket(models.Model):
    """Lets one browser connection through the relay, once, within half a minute."""

    LIFETIME = timedelta(seconds=30)

    desktop = models.ForeignKey(Desktop, on_delete=models.CASCADE)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    digest = models.CharField(max_length=64, unique=True)
    expires = models.DateTimeField()

    @classmethod
    def issue(cls, desktop: Desktop, user: User) -> str:
        """Make a ticket for this user and desktop and return its secret, which is not kept."""
        cls.objects.filter(expires__lt=timezone.now()).delete()
        secret = new_secret()
        expires = timezone.now() + cls.LIFETIME
        cls.objects.create(desktop=desktop, user=user, digest=digest(secret), expires=expires)
        return secret

    @classmethod
    def redeem(cls, secret: str, desktop_id: uuid.UUID, user_id: int) -> bool:
        """Use the ticket up; True if it was still good for this very desktop and user."""
        good: models.QuerySet[Self] = cls.objects.filter(
            digest=digest(secret), desktop_id=desktop_id, user_id=user_id, expires__gt=timezone.now()
        )
        return good.delete()[0] == 1
