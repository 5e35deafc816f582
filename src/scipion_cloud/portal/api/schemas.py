"""What the API says about people, projects and desktops. Times are UTC, lengths A, sizes bytes."""

import uuid
from datetime import datetime
from typing import Any, Self

from ninja import Schema
from pydantic import Field, field_validator

from scipion_cloud.deployments.states import Phase
from scipion_cloud.model import DesktopState, Role
from scipion_cloud.records import models
from scipion_cloud.sync import generation as generations
from scipion_cloud.sync.lock_info import LockInfo


class Incoming(Schema):
    """What somebody sends to be stored or looked up. PostgreSQL's texts cannot hold the character NUL."""

    @field_validator("*")
    @classmethod
    def without_nul(cls, value: object) -> object:
        """Refuse what could not be stored."""
        if isinstance(value, str) and "\0" in value:
            raise ValueError("It must not hold the character NUL.")
        return value


class Login(Incoming):
    """Either an e-mail address and its password, or the secret of a one-time sign-in link."""

    email: str = ""
    password: str = ""
    link: str = Field("", description="The secret: what follows /sign-in/ in the link's address.")
    name: str = Field("command line", max_length=100, description="What the account page calls the token.")


class Token(Schema):
    """A token for `Authorization: Bearer TOKEN`. It is shown this once."""

    token: str
    expires: datetime


class Person(Schema):
    """Somebody with an account."""

    id: int
    email: str
    name: str

    @classmethod
    def of(cls, user: models.User) -> Self:
        """From the record."""
        return cls(id=user.pk, email=user.email, name=str(user))


class Me(Person):
    """The one who asks."""

    administrator: bool


class ArchiveFile(Incoming):
    """An archive (.tar, .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .zip) among the data of a project."""

    project: uuid.UUID
    path: str = Field(description="Relative to the project's data folder.")


class Preparation(Schema):
    """How far the files of a new project have come that is made of another one or of an archive."""

    state: models.Preparing
    message: str = Field(description="Why it waits or has failed.")
    status: dict[str, Any] = Field(description="Files and bytes done and total, and what was left out.")

    @classmethod
    def of(cls, row: models.Preparation) -> Self:
        """From the record."""
        return cls(state=models.Preparing(row.state), message=row.message, status=row.status)


class NewProject(Schema):
    """A project to be made."""

    name: str
    description: str = ""
    demo: bool = Field(False, description="With a few example movies in it.")
    storage: uuid.UUID | None = Field(
        None, description="A connected storage to keep it in; else this machine."
    )
    folder: str = Field("", description="Where in the storage.")
    existing: bool = Field(False, description="Take up the project that lies there already.")
    clone_of: uuid.UUID | None = Field(None, description="A copy of this project, its boxes and files.")
    generation: int | None = Field(None, ge=1, description="As it was in this generation; else as it is now.")
    archive: ArchiveFile | None = Field(None, description="The Scipion project that is in this archive.")
    source: uuid.UUID | None = Field(
        None, description="A connected storage with a dataset that is only read."
    )
    source_folder: str = Field("", description="Where in that storage.")


class Project(Schema):
    """A project and what the one who asks is in it."""

    id: uuid.UUID
    name: str
    description: str
    owner: Person
    role: Role
    created: datetime
    storage: str = Field(description="URL of the folder that keeps it; empty if it is kept on this machine.")
    is_open: bool = Field(description="People can work in it now.")
    preparation: Preparation | None = Field(description="Of a project that is made of another; else null.")
    tus: str = Field(description="Address to which tus 1.0 uploads of this project are sent.")

    @classmethod
    def of(cls, project: models.Project, user: models.User) -> Self:
        """From the record."""
        return cls(
            id=project.id,
            name=project.name,
            description=project.description,
            owner=Person.of(project.owner),
            role=project.role_of(user) or Role.VIEWER,
            created=project.created,
            storage=project.storage_url,
            is_open=project.is_open,
            preparation=Preparation.of(project.preparation) if hasattr(project, "preparation") else None,
            tus=f"/projects/{project.id}/tus",
        )


class NewMember(Incoming):
    """Somebody to be let in, or given another role."""

    email: str
    role: Role


class Member(Person):
    """Somebody who is in a project."""

    role: Role
    owner: bool


class Generation(Schema):
    """The project as one save left it."""

    number: int
    created: datetime
    user: str
    host: str
    note: str
    files: int
    bytes: int = Field(description="Of all files.")

    @classmethod
    def of(cls, generation: generations.Generation) -> Self:
        """From what the storage says."""
        return cls(
            number=generation.number,
            created=generation.created,
            user=generation.user,
            host=generation.host,
            note=generation.note,
            files=generation.files,
            bytes=generation.bytes,
        )


class Lock(Schema):
    """Who has or had a project open."""

    user: str
    host: str
    acquired: datetime
    renewed: datetime
    live: bool = Field(description="Somebody may be writing.")
    description: str

    @classmethod
    def of(cls, lock: LockInfo) -> Self:
        """From the lock in the storage."""
        return cls(
            user=lock.user,
            host=lock.host,
            acquired=lock.acquired,
            renewed=lock.renewed,
            live=lock.live,
            description=lock.describe(),
        )


class Deployment(Schema):
    """A project opened here until a deadline."""

    id: uuid.UUID
    project: uuid.UUID
    phase: Phase
    message: str
    close_requested: bool
    deadline: datetime
    generation: int | None = Field(description="Last saved or restored.")
    last_saved: datetime | None
    created: datetime
    ready: datetime | None
    ended: datetime | None
    status: dict[str, Any] = Field(description="What the agent last told: progress, problems, questions.")

    @classmethod
    def of(cls, row: models.Deployment) -> Self:
        """From the record."""
        return cls(
            id=row.id,
            project=row.project_id,
            phase=row.state,
            message=row.message,
            close_requested=row.close_requested,
            deadline=row.deadline,
            generation=row.generation,
            last_saved=row.last_saved,
            created=row.created,
            ready=row.ready,
            ended=row.ended,
            status=row.status,
        )


class Desktop(Schema):
    """An X session with Scipion in it, on one project, until a deadline."""

    id: uuid.UUID
    project: uuid.UUID
    opened_by: Person
    state: DesktopState
    message: str = Field(description="Why it failed, if it did.")
    created: datetime
    ready: datetime | None
    deadline: datetime
    ended: datetime | None
    url: str = Field(description="The page that shows it.")

    @classmethod
    def of(cls, desktop: models.Desktop) -> Self:
        """From the record."""
        return cls(
            id=desktop.id,
            project=desktop.project_id,
            opened_by=Person.of(desktop.user),
            state=desktop.status,
            message=desktop.message,
            created=desktop.created,
            ready=desktop.ready,
            deadline=desktop.deadline,
            ended=desktop.ended,
            url=f"/projects/{desktop.project_id}/desktop/",
        )
