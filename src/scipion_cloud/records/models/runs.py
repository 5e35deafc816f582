"""Runs of web tools and what they found, movie by movie."""

import uuid
from pathlib import Path

from django.db import models

from scipion_cloud.config import get_config
from scipion_cloud.model import AUTOMATIC, MovieState, RunState
from scipion_cloud.records.fields import LogJson, LogText
from scipion_cloud.records.models.people import User
from scipion_cloud.records.models.projects import Project


class Run(models.Model):
    """One execution of a web tool in a project."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="runs")
    tool = models.CharField(max_length=40)
    label = models.CharField(max_length=120, blank=True)
    parameters = models.JSONField()  # as validated by the tool
    where = models.CharField(max_length=30, default=AUTOMATIC)  # as wished: automatic, here, or a site's name
    site = models.CharField(max_length=30, blank=True)  # which it got; empty: here
    user = models.ForeignKey(User, on_delete=models.SET_NULL, null=True)
    state = models.CharField(
        max_length=10, choices=[(s.value, s.value) for s in RunState], default=RunState.WAITING.value
    )
    cancel_requested = models.BooleanField(default=False)
    job_id = models.BigIntegerField(null=True)
    steps = LogJson(default=dict)  # step name -> protocol_id, status, run_dir, error
    message = LogText(blank=True)  # why it failed, in the user's words
    created = models.DateTimeField(auto_now_add=True)
    started = models.DateTimeField(null=True)
    ended = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created"]

    @property
    def status(self) -> RunState:
        """The state as a value with behaviour."""
        return RunState(self.state)

    @property
    def phase(self) -> str:
        """What is being done about the part of it that runs elsewhere; empty if none does."""
        return next((phase for step in self.steps.values() if (phase := step.get("phase", ""))), "")

    @property
    def pictures(self) -> Path:
        """Folder of the pictures made from this run's outputs."""
        return get_config().results / self.id.hex


class Movie(models.Model):
    """One movie of a movie alignment run. Motions in A; None where RELION gave no usable number."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="movies")
    index = models.PositiveIntegerField()  # order in the set, from 1
    name = models.CharField(max_length=1024)  # as uploaded, relative to the data folder
    stem = models.CharField(max_length=255)  # the safe name under which RELION saw it, without extension
    state = models.CharField(
        max_length=10, choices=[(s.value, s.value) for s in MovieState], default=MovieState.WAITING.value
    )
    total = models.FloatField(null=True)
    early = models.FloatField(null=True)
    late = models.FloatField(null=True)
    drift = models.JSONField(default=list)  # [[x, y], ...] in A, one pair a frame
    local = models.JSONField(default=list)  # [[x, y, dx, dy], ...] see tools.movies.results
    thumbnail = models.BooleanField(default=False)  # is on disk
    details = models.BooleanField(default=False)  # before and after and their power spectra are on disk
    wanted = models.BooleanField(default=False)  # somebody looks at its page and waits for the details
    accepted = models.BooleanField(
        default=True
    )  # a person's choice; rejected ones are left out of the STAR file
    message = LogText(blank=True)

    class Meta:
        ordering = ["index"]
        constraints = [models.UniqueConstraint(fields=["run", "stem"], name="one_movie_a_stem")]
