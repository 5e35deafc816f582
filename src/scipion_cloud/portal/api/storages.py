"""Storages that a person has connected, and what lies in them."""

import uuid
from datetime import datetime
from typing import Any, Self

from ninja import Router, Schema, Status
from pydantic import Field

from scipion_cloud.portal import services
from scipion_cloud.portal.api.auth import ApiRequest
from scipion_cloud.portal.api.problems import PROBLEMS
from scipion_cloud.portal.api.schemas import Generation, Incoming, Lock
from scipion_cloud.records import models

router = Router(tags=["storages"])


class NewStorage(Incoming):
    """A storage to be connected."""

    name: str
    url: str = Field(
        description="As s3+https://host/bucket/folder, sftp://user@host/folder, davs://host/folder."
    )
    credentials: dict[str, str] = Field(default={}, description="Kept encrypted, and never given out again.")


class Storage(Schema):
    """A connected storage, without its credentials."""

    id: uuid.UUID
    name: str
    kind: str
    url: str
    findings: list[dict[str, Any]] = Field(
        description="What the self-test found: name, promised, works, note."
    )
    exclusive: bool = Field(description="Its own locks keep two writers apart.")
    tested: datetime

    @classmethod
    def of(cls, row: models.StorageConnection) -> Self:
        """From the record."""
        return cls(
            id=row.id,
            name=row.name,
            kind=row.kind,
            url=row.url,
            findings=row.findings,
            exclusive=row.exclusive,
            tested=row.tested,
        )


class Folder(Schema):
    """A folder of a storage: the folders in it, and whether a project lies in it."""

    url: str
    folders: list[str]
    is_empty: bool
    generation: Generation | None
    lock: Lock | None
    legacy: str = Field(description="What an earlier system left here, in words; empty if nothing.")


@router.get("", response={200: list[Storage], **PROBLEMS}, summary="Storages")
def list_storages(request: ApiRequest) -> list[Storage]:
    """The storages that you have connected."""
    return [Storage.of(row) for row in services.connections_of(request.auth)]


@router.post("", response={201: Storage, **PROBLEMS}, summary="Connect a storage")
def connect_storage(request: ApiRequest, data: NewStorage) -> Status[Storage]:
    """Try a storage out, and keep it if people can work with it; takes some seconds."""
    return Status(
        201, Storage.of(services.connect_storage(request.auth, data.name, data.url, data.credentials))
    )


@router.get("/{uuid:storage_id}/folder", response={200: Folder, **PROBLEMS}, summary="Look into a storage")
def look_inside(request: ApiRequest, storage_id: uuid.UUID, path: str = "") -> Folder:
    """What lies in a folder of a storage."""
    connection = services.connection_for(request.auth, storage_id)
    found = services.look_inside(connection, path)
    return Folder(
        url=found.url,
        folders=services.folders_in(connection, path),
        is_empty=found.is_empty,
        generation=Generation.of(found.generation) if found.generation else None,
        lock=Lock.of(found.lock) if found.lock else None,
        legacy=found.legacy.describe() if found.legacy else "",
    )


@router.delete("/{uuid:storage_id}", response={204: None, **PROBLEMS}, summary="Forget a storage")
def forget_storage(request: ApiRequest, storage_id: uuid.UUID) -> Status[None]:
    """Forget it and its credentials; nothing in it changes. Refused with 409 while projects use it."""
    services.forget_storage(request.auth, services.connection_for(request.auth, storage_id))
    return Status(204, None)
