"""The sites, for operators."""

from datetime import datetime
from typing import Any

from ninja import Router, Schema
from pydantic import Field

from scipion_cloud.portal import services
from scipion_cloud.portal.api.auth import ApiRequest
from scipion_cloud.portal.api.problems import PROBLEMS
from scipion_cloud.portal.api.schemas import Incoming
from scipion_cloud.sites.telling import told

router = Router(tags=["sites"])


class Flavour(Schema):
    """A size of node, and its price."""

    name: str
    cpus: int
    memory_gb: float = Field(description="GiB.")
    gpus: int
    disk_gb: float
    price_per_hour: float


class Node(Schema):
    """A machine of a site."""

    name: str
    state: str = Field(description="idle, busy, full, down, drained, off, starting or stopping.")
    cpus: int
    cpus_used: int
    memory_gb: float = Field(description="GiB.")
    gpus: int
    reason: str


class Site(Schema):
    """A place where jobs can run, as it was seen last."""

    name: str
    title: str
    kind: str = Field(description="home, storage or compute.")
    batch: str
    state: str = Field(description="ready, drained, unreachable, or unknown before the first look.")
    drained: str = Field(description="Why it takes no new jobs; empty if it takes them.")
    drained_since: datetime | None
    unreachable: str = Field(description="Why it could not be asked the last time; empty if it could.")
    unreachable_since: datetime | None
    seen: datetime | None
    software: list[str]
    flavours: list[Flavour]
    nodes: list[Node]
    cpus: int
    cpus_used: int
    running: int = Field(description="Jobs of this service.")
    queued: int
    used_gb: float | None
    free_gb: float | None
    bytes_per_second: float | None = Field(description="Of the last transfers.")
    version: str
    tested: dict[str, Any] | None = Field(description="The last `site test`: when, ok, steps.")


class Draining(Incoming):
    """Why a site is to take no new jobs."""

    reason: str = ""


@router.get("", response={200: list[Site], **PROBLEMS}, summary="Sites")
def list_sites(request: ApiRequest) -> list[Site]:
    """All sites. For administrators."""
    return [Site(**told(now)) for now in services.all_sites(request.auth)]


@router.get("/{slug:name}", response={200: Site, **PROBLEMS}, summary="One site")
def show_site(request: ApiRequest, name: str) -> Site:
    """One site. For administrators."""
    return Site(**told(services.one_site(request.auth, name)))


@router.post("/{slug:name}/drain", response={200: Site, **PROBLEMS}, summary="Drain a site")
def drain_site(request: ApiRequest, name: str, data: Draining) -> Site:
    """Let it take no new jobs; what is there goes on. For administrators."""
    return Site(**told(services.drain_site(request.auth, name, data.reason)))


@router.post("/{slug:name}/resume", response={200: Site, **PROBLEMS}, summary="Resume a site")
def resume_site(request: ApiRequest, name: str) -> Site:
    """Let it take jobs again. For administrators."""
    return Site(**told(services.resume_site(request.auth, name)))
