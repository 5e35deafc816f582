"""What a site is, as `sites.toml` says it; `docs/reference/sites.md` is made from here."""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from scipion_cloud.errors import NotFound

MPI = "mpirun --oversubscribe -np {n}"
_EVERYWHERE = frozenset({"pwem", "pyworkflow", "scipion_cloud_em"})  # part of each Scipion environment
_LABELS = {
    "relion": "RELION",
    "xmipp3": "Xmipp",
    "cryosparc2": "CryoSPARC",
    "eman2": "EMAN2",
    "cistem": "cisTEM",
    "motioncorr": "MotionCor",
    "gctf": "Gctf",
    "sphire": "SPHIRE",
    "topaz": "Topaz",
    "cryodrgn": "cryoDRGN",
    "modelangelo": "ModelAngelo",
}


def software_label(package: str) -> str:
    """What people call the software behind a Scipion plugin."""
    return _LABELS.get(package, package)


class SiteKind(StrEnum):
    """What a site is for."""

    HOME = "home"  # where this service runs and its projects are open
    STORAGE = "storage"  # has a storage of its own beside it
    COMPUTE = "compute"  # computes only: files go there and come back


class Batch(StrEnum):
    """Which batch system a site has."""

    LOCAL = "local"  # none: one machine, whose jobs are queued by us
    SLURM = "slurm"
    SGE = "sge"


def _slug(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,29}", value) or value.endswith("-"):
        raise ValueError(
            f"{value!r} is not a name: write a lower-case letter, then at most 29 letters, digits and '-'"
        )
    return value


def _line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("write one line of printable characters")
    return value


def _absolute(value: Path) -> Path:
    if not value.is_absolute() or ".." in value.parts or not str(value).isprintable():
        raise ValueError(f"write an absolute path, not {str(value)!r}")
    return value


def _unquoted(value: Path) -> Path:
    if found := re.search(r"""[\s'"\\$`&|;<>()*?\[\]{}#~!]""", str(value)):
        raise ValueError(
            f"Scipion does not quote paths of programs, so this one must not have {found[0]!r} in it; "
            "install Scipion elsewhere, or make a link to it"
        )
    return value


def _host(value: str) -> str:
    if value and not re.fullmatch(r"[\w.:%][\w.:%-]*", value):
        raise ValueError(f"{value!r} is not the name or the address of a machine")
    return value


def _user(value: str) -> str:
    if value and not re.fullmatch(r"[\w.@+][\w.@+-]*", value):
        raise ValueError(f"{value!r} is not the name of an account")
    return value


Slug = Annotated[str, AfterValidator(_slug)]
Line = Annotated[str, AfterValidator(_line)]
Folder = Annotated[Path, AfterValidator(_absolute)]
Unquoted = Annotated[Path, AfterValidator(_absolute), AfterValidator(_unquoted)]


class Part(BaseModel):
    """A piece of `sites.toml`: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Flavour(Part):
    """A size of machine: the most that one job gets on one node, and its price."""

    name: Slug = Field(description="For people: small, gpu.")
    cpus: int = Field(ge=1, le=4096, description="CPUs of a node.")
    memory_gb: float = Field(gt=0, le=65536, description="Memory of a node, GiB.")
    gpus: int = Field(0, ge=0, le=64, description="GPUs of a node.")
    disk_gb: float = Field(0.0, ge=0, description="Scratch disk of a node, GB; 0 if it does not matter.")
    price_per_hour: float = Field(
        0.0, ge=0, description="What a whole node costs an hour, in the currency of the file."
    )


class Elastic(Part):
    """Nodes that come with the work and go when it is done."""

    provider: Slug = Field(description="Where nodes come from: processes, namespaces.")
    max_nodes: int = Field(ge=1, le=1000, description="The most nodes at a time.")
    flavour: str = Field("", description="Which flavour they have; the first one if unset.")
    idle_seconds: int = Field(300, ge=1, description="An idle node is removed after this time, s.")
    start_seconds: int = Field(600, ge=5, description="A node that is not up after this time has failed, s.")
    options: Mapping[str, str] = Field(
        {},
        description="What the provider needs to know besides: `quota`, the most nodes that it gives; "
        '`gpus = "stand-ins"`, to try GPUs out where there are none.',
    )


class Site(Part):
    """A place where jobs can run: a batch system, a working area, the way there."""

    name: Slug = Field(description="The name of its table.")
    title: Line = Field("", max_length=60, description="For people; the name if unset.")
    kind: SiteKind = Field(
        SiteKind.COMPUTE,
        description="`home` (this machine or the cluster that it is part of; one at most), `storage` (has a "
        "storage of its own), `compute` (computes only).",
    )
    batch: Batch = Field(Batch.LOCAL, description="Its batch system.")
    partition: Line = Field(
        "", description="Partition or queue of jobs; the batch system's default if unset."
    )
    interactive_partition: Line = Field(
        "", description="Partition of desktops, whose CPUs are shared; that of jobs if unset."
    )
    options: Mapping[str, str] = Field(
        {},
        description="What the batch system needs besides; of Slurm: `conf`, the path of its slurm.conf; of "
        "`local`: `cpus`, `memory_gb` and `gpus` that jobs may use, of `sge`: `gpus` of its largest node.",
    )
    host: Annotated[str, AfterValidator(_host)] = Field(
        "", description="The machine where jobs are submitted, by SSH; without it no SSH is needed."
    )
    port: int = Field(22, ge=1, le=65535, description="Port of SSH.")
    user: Annotated[str, AfterValidator(_user)] = Field("", description="The account of this service there.")
    key_file: Path | None = Field(
        None,
        description="Private key of this service, without passphrase; absolute or below the home folder.",
    )
    known_hosts_file: Path | None = Field(
        None, description="The host keys that are trusted, as ssh-keyscan prints them; a path as above."
    )
    area: Folder | None = Field(None, description="The working area there; only this service writes in it.")
    python: Line = Field("python3", description="A Python of 3.11 or later there.")
    scipion: Unquoted | None = Field(None, description="The Python of its Scipion environment; no spaces.")
    scipion_home: Unquoted | None = Field(None, description="SCIPION_HOME there; no spaces.")
    env: Mapping[str, str] = Field({}, description="Variables that every job there sees.")
    mpi: Line = Field(MPI, description="How programs of MPI are started; {n} is the number of processes.")
    software: tuple[Line, ...] = Field(
        (), description="Scipion plugins that work there, by package: relion, xmipp3. Home has what it has."
    )
    flavours: tuple[Flavour, ...] = Field(
        (), description="Sizes of its nodes; what the batch system says of them if unset."
    )
    max_cpus: int | None = Field(
        None, ge=1, description="CPUs that one job may have; with `local`, all of ours together."
    )
    max_hours: float | None = Field(None, gt=0, description="The longest job, h.")
    max_jobs: int | None = Field(None, ge=1, description="Jobs of ours there, waiting ones too.")
    max_gb: float | None = Field(None, gt=0, description="What we may keep in its area, GB.")
    elastic: Elastic | None = Field(None, description="Nodes that come and go; see below.")

    @property
    def is_home(self) -> bool:
        """True where this service runs."""
        return self.kind is SiteKind.HOME

    @property
    def label(self) -> str:
        """What people call it."""
        return self.title or self.name

    def has(self, package: str) -> bool:
        """Whether protocols of this Scipion plugin can run there."""
        return self.is_home or package in self.software or package in _EVERYWHERE

    @field_validator("mpi")
    @classmethod
    def _has_n(cls, value: str) -> str:
        if value.count("{n}") != 1 or "{" in value.replace("{n}", "") or value.strip().startswith("{"):
            raise ValueError(f"write a command with {{n}} for the number of processes, as {MPI!r}")
        return value

    @field_validator("env")
    @classmethod
    def _names(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
                raise ValueError(f"{name!r} cannot be the name of a variable")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [flavour.name for flavour in self.flavours]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ValueError(f"flavours: two are called {twice!r}; give each its own name")
        if self.elastic and self.elastic.flavour not in ("", *names):
            raise ValueError(f"elastic.flavour: there is no flavour {self.elastic.flavour!r} here")
        if self.elastic and not self.flavours:
            raise ValueError("elastic: name at least one flavour, for the size of the nodes")
        if self.elastic and self.batch is not Batch.SLURM:
            raise ValueError("elastic: nodes that come and go need batch = 'slurm'")
        if self.is_home and (told := [key for key in ("host", "area", "scipion") if getattr(self, key)]):
            raise ValueError(f"{told[0]}: the home site is reached without it; take it out")
        if not self.is_home and self.area is None:
            raise ValueError("area: name the folder there that this service works in")
        if self.host:
            for key in ("key_file", "known_hosts_file"):
                if getattr(self, key) is None:
                    raise ValueError(f"{key}: a site with a host needs one; see docs/how-to/add-a-site.md")
        return self


class Sites(Part):
    """All sites, the home first."""

    home: Site
    away: tuple[Site, ...] = ()
    currency: Line = "€"

    def __iter__(self) -> Iterator[Site]:  # type: ignore[override] # pydantic's own gives fields
        yield self.home
        yield from self.away

    def __getitem__(self, name: str) -> Site:
        """The site with this name; `""` and `here` are the home. Raises NotFound."""
        for site in self:
            if site.name == name or (site.is_home and name in ("", "here")):
                return site
        names = ", ".join(site.name for site in self)
        raise NotFound(f"There is no site {name!r} in sites.toml; there are: {names}.")
