"""The home folder: its parts, their permissions, and the lock that lets one `up` run on it."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scipion_cloud.config import Config
from scipion_cloud.errors import SetupError
from scipion_cloud.provision.process import Report
from scipion_cloud.provision.steps import Step

PRIVATE = 0o700


def folders(config: Config) -> list[Path]:
    """The folders of a home, none of which is anybody else's business."""
    return [
        config.home,
        config.projects,
        config.agents,
        config.jobs,
        config.desktops,
        config.results,
        logs(config),
    ]


def logs(config: Config) -> Path:
    """Where the portal and the controller write their logs."""
    return config.home / "logs"


def step(config: Config) -> Step:
    """The set-up step that makes the folders, for their owner only. Its work raises SetupError."""

    def done() -> bool:
        return config.software.is_dir() and all(_is_private(folder) for folder in folders(config))

    def work(report: Report) -> None:
        for folder in [*folders(config), config.software]:
            report(str(folder))
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
                if folder != config.software:
                    folder.chmod(PRIVATE)
            except OSError as e:
                raise SetupError(
                    f"{folder} cannot be made or kept private ({e.strerror}). Mend its permissions, "
                    "or choose another place with SCIPION_CLOUD_HOME (or SCIPION_CLOUD_SOFTWARE)."
                ) from e

    return Step("Folders", done, work)


def _is_private(folder: Path) -> bool:
    return folder.is_dir() and folder.stat().st_mode & 0o077 == 0


@contextmanager
def locked(config: Config) -> Iterator[None]:
    """Hold the home for one `up`; the kernel lets it go when the holder dies, however that happens.

    Raises SetupError, naming the holder, if another `up` has it.
    """
    config.home.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    with (config.home / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise SetupError(
                f"Scipion Cloud is up on {config.home} already{_holder(file.name)}. "
                "Stop it with Ctrl-C there, or choose another home with SCIPION_CLOUD_HOME."
            ) from e
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "url": config.url}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _holder(file: str) -> str:
    try:
        holder = json.loads(Path(file).read_text())
        return f" (process {holder['pid']}, {holder['url']})"
    except (OSError, ValueError, KeyError):  # it has only just begun
        return ""
