"""The one configuration: defaults, `config.toml` in the home folder, then `SCIPION_CLOUD_*` variables."""

import os
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from scipion_cloud.errors import ConfigError

ENV_PREFIX = "SCIPION_CLOUD_"


def _data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "scipion-cloud"


class Config(BaseModel):
    """Everything an installation can choose. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(
        default_factory=_data_dir,
        description="Folder of the database, projects and jobs; ~/.local/share/scipion-cloud if unset. "
        "A variable only: config.toml lies in it.",
    )
    software: Path = Field(
        default_factory=lambda: _data_dir() / "software",
        description="Folder of the Scipion environment; several homes can share one. "
        "~/.local/share/scipion-cloud/software if unset.",
    )
    host: str = Field("127.0.0.1", description="Address that the portal listens on.")
    port: int = Field(8080, ge=1, le=65535, description="Port that the portal listens on.")
    public_url: str = Field(
        "", description="How browsers reach the portal when a TLS proxy stands before it, as https://name."
    )
    database: str = Field(
        "sqlite", description="'sqlite', or a URL postgresql://user:password@host:port/name."
    )
    cpus: int | None = Field(None, ge=1, description="CPUs that jobs may use; all of the machine if unset.")
    memory_gb: float | None = Field(None, gt=0, description="Memory that jobs may use, GiB; 90 % if unset.")
    gpus: int = Field(0, ge=0, description="GPUs of this machine that jobs may use.")
    max_queued: int = Field(10_000, ge=1, description="Jobs that may wait in the local queue.")
    desktop_hours: float = Field(8.0, gt=0, description="Hours until a desktop closes unless it is extended.")
    upload_max_gb: float = Field(1024.0, gt=0, description="Largest single upload, GiB.")
    folders: tuple[Path, ...] = Field(
        (), description="Folders of this machine below which projects may be kept with file:// URLs."
    )
    autosave_seconds: float = Field(120.0, ge=5, description="Time between two saves of an open project.")
    project_days: int = Field(7, ge=1, description="Days until an open project closes unless it is extended.")
    project_max_days: int = Field(30, ge=1, description="Longest time that a person can ask for, days.")
    keep_days: int = Field(14, ge=0, description="Days for which earlier generations of a project are kept.")

    @field_validator("folders", mode="before")
    @classmethod
    def _from_variable(cls, value: object) -> object:
        """In a variable they stand as in PATH."""
        return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value

    @property
    def projects(self) -> Path:
        """Folder of the projects' working copies."""
        return self.home / "projects"

    @property
    def jobs(self) -> Path:
        """Folder of the local batch system."""
        return self.home / "jobs"

    @property
    def desktops(self) -> Path:
        """Folder of the desktops' sockets, settings and logs."""
        return self.home / "desktops"

    @property
    def agents(self) -> Path:
        """Folder of the agents' states; on the same file system as the projects."""
        return self.home / "agents"

    @property
    def copies(self) -> Path:
        """Folder of the jobs that copy projects or unpack archives."""
        return self.home / "copies"

    @property
    def storage_key(self) -> Path:
        """The file with the key that seals the storages' credentials."""
        return self.home / "storage-key"

    @property
    def results(self) -> Path:
        """Folder of pictures made from runs; can be made again."""
        return self.home / "results"

    @property
    def scipion_home(self) -> Path:
        """SCIPION_HOME: Scipion's configuration and its `software/em` folder."""
        return self.software / "scipion"

    @property
    def scipion_python(self) -> Path:
        """The interpreter of the Scipion environment."""
        return self.software / "scipion-env" / "bin" / "python"

    @property
    def url(self) -> str:
        """How a browser reaches the portal, without a slash at the end."""
        return self.public_url.rstrip("/") or f"http://{self.host}:{self.port}"


def read_config() -> Config:
    """Read the configuration afresh. Raises ConfigError with the key at fault and what is expected there."""
    from_env = {
        name: value for name in Config.model_fields if (value := os.environ.get(ENV_PREFIX + name.upper()))
    }
    home = Path(from_env.get("home") or _data_dir())
    file = home / "config.toml"
    values: dict[str, Any] = {}
    if file.exists():
        try:
            values = tomllib.loads(file.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise ConfigError(f"{file} is not valid TOML: {e}. Correct it or move it away.") from e
        except OSError as e:
            raise ConfigError(
                f"{file} cannot be read ({e.strerror}). Mend its permissions or move it away."
            ) from e
    if "home" in values:
        raise ConfigError(
            f"{file} cannot say where it lies itself: take 'home' out, and set {ENV_PREFIX}HOME instead."
        )
    try:
        return Config(**{"home": home, **values, **from_env})
    except ValidationError as e:
        faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in e.errors())
        raise ConfigError(f"{file} or a {ENV_PREFIX}* variable is wrong: {faults}.") from e


@cache
def get_config() -> Config:
    """The configuration of this process, read once."""
    return read_config()
