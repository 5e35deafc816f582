"""Storages that people have connected."""

import uuid
from pathlib import PurePosixPath
from urllib.parse import quote

from django.db import models

from scipion_cloud.records.fields import LogJson
from scipion_cloud.records.models.people import User


class StorageConnection(models.Model):
    """A storage and what is needed to be let in, which is kept encrypted and never shown again."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="storages")
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=20)  # the id of a storage.StorageKind
    url = models.CharField(max_length=1000)  # without secrets
    credentials = models.TextField(editable=False)  # sealed
    findings = LogJson(default=list)  # what the self-test found: [{name, promised, works, note}]
    exclusive = models.BooleanField(default=False)  # its locks hold; else this database keeps them apart
    bytes_per_second = models.FloatField(null=True)  # of the last large stage-in
    files_per_second = models.FloatField(null=True)  # of the last stage-in with many small files
    tested = models.DateTimeField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def url_of(self, folder: str) -> str:
        """The URL of a folder (text, '/' between its parts, "" for the root) in this storage."""
        path = quote(str(PurePosixPath(folder)), safe="/") if folder else ""
        return "/".join(part for part in (self.url.rstrip("/"), path) if part)
