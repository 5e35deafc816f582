"""Projects and who may do what in them."""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Self

from django.db import models
from django.utils.text import slugify

from scipion_cloud.config import get_config
from scipion_cloud.deployments.states import Phase
from scipion_cloud.model import Role
from scipion_cloud.records.models.people import User
from scipion_cloud.records.models.storages import StorageConnection

if TYPE_CHECKING:
    from scipion_cloud.records.models.deployments import Deployment

_RANK = {Role.VIEWER: 0, Role.EDITOR: 1, Role.MANAGER: 2}


class ProjectQuerySet(models.QuerySet["Project"]):
    """Projects as one person may see them."""

    def visible_to(self, user: User) -> Self:
        """Projects that `user` owns or is a member of and that are not being deleted."""
        mine = models.Q(owner=user) | models.Q(membership__user=user)
        return self.filter(mine, deleted=None).distinct()


class Project(models.Model):
    """A Scipion project with an owner and members."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120)
    description = models.TextField(max_length=4000, blank=True)
    folder = models.CharField(max_length=80, unique=True, editable=False)
    owner = models.ForeignKey(User, on_delete=models.PROTECT, related_name="owned_projects")
    storage = models.ForeignKey(
        StorageConnection, on_delete=models.PROTECT, null=True, related_name="projects"
    )
    storage_url = models.CharField(max_length=2000, blank=True)  # its folder there; empty: kept here
    source = models.ForeignKey(StorageConnection, on_delete=models.PROTECT, null=True, related_name="+")
    source_url = models.CharField(max_length=2000, blank=True)  # a read-only dataset that it reads
    members = models.ManyToManyField(User, through="Membership", related_name="projects")
    created = models.DateTimeField(auto_now_add=True)
    deleted = models.DateTimeField(null=True, editable=False)

    objects = ProjectQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["storage_url"],
                condition=models.Q(deleted=None) & ~models.Q(storage_url=""),
                name="one_project_a_folder",
            )
        ]

    def __str__(self) -> str:
        return self.name

    def name_folder(self) -> None:
        """Name the folder once: safe characters only, since Scipion writes it into shell commands."""
        if not self.folder:
            self.folder = f"{slugify(self.name)[:40].strip('-_') or 'project'}-{self.id.hex[:8]}"

    def save(self, *args: object, **kwargs: object) -> None:
        """Save the row; a new one gets the name of its folder."""
        self.name_folder()
        super().save(*args, **kwargs)  # type: ignore[arg-type]

    @property
    def path(self) -> Path:
        """The working copy: the folder in which Scipion works."""
        return get_config().projects / self.folder

    @property
    def data(self) -> Path:
        """Where uploads land."""
        return self.path / "data"

    @property
    def has_storage(self) -> bool:
        """Whether it has to be opened before people can work in it; else it is kept on this machine."""
        return bool(self.storage_url)

    @property
    def deployment(self) -> "Deployment | None":
        """The one that is live."""
        return self.deployments.exclude(phase__in=[p.value for p in Phase if p.is_final]).first()

    @property
    def is_prepared(self) -> bool:
        """Whether its files are there; those of a copy have to be brought first."""
        preparation = getattr(self, "preparation", None)
        return preparation is None or preparation.is_done

    @property
    def is_open(self) -> bool:
        """Whether people can work in it now."""
        if not self.is_prepared:
            return False
        if not self.has_storage:
            return True
        live = self.deployment
        return live is not None and live.is_usable

    def role_of(self, user: User) -> Role | None:
        """What `user` is in this project; None for a stranger."""
        if self.owner_id == user.pk:
            return Role.MANAGER
        membership = self.membership_set.filter(user=user).first()
        return Role(membership.role) if membership else None

    def allows(self, user: User, role: Role) -> bool:
        """Whether `user` has at least the rights of `role` here."""
        actual = self.role_of(user)
        return actual is not None and _RANK[actual] >= _RANK[role]


class Membership(models.Model):
    """A person's role in a project that somebody else owns."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    role = models.CharField(max_length=10, choices=[(r.value, r.value) for r in Role])

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "user"], name="one_role_each")]
