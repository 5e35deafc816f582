"""What the API says about people, projects and desktops. Times are UTC, lengths A, sizes bytes."""

import uuid
from datetime import datetime
from typing import Self

from ninja import Schema
from pydantic import Field, field_validator

from scipion_cloud.model import DesktopState, Role
from scipion_cloud.records import models


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


class NewProject(Schema):
    """A project to be made."""

    name: str
    description: str = ""
    demo: bool = Field(False, description="With a few example movies in it.")


class Project(Schema):
    """A project and what the one who asks is in it."""

    id: uuid.UUID
    name: str
    description: str
    owner: Person
    role: Role
    created: datetime
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
