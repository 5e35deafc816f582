"""The set-up as `up` and `test` do it, and the database's part of it."""

import sys
from importlib.metadata import version
from pathlib import Path

import scipion_cloud
from scipion_cloud.config import Config
from scipion_cloud.provision import apt, home, npm
from scipion_cloud.provision.process import Report, stream
from scipion_cloud.provision.scipion import install_scipion, scipion_is_current
from scipion_cloud.provision.steps import Stamp, Step, digest_of

STATIC = Path(scipion_cloud.__file__).parent / "portal" / "static"


def machine_steps(config: Config, packages: tuple[apt.Package, ...] = apt.RUNTIME) -> list[Step]:
    """What the machine and the checkout need, whatever the home."""
    scipion = Step(
        "Scipion environment",
        lambda: scipion_is_current(config.software),
        lambda report: install_scipion(config.software, report),
    )
    return [apt.step(packages), npm.step(), scipion]


def home_steps(config: Config) -> list[Step]:
    """What a home needs before its portal can start."""
    return [home.step(config)]


def prepare_database(config: Config, report: Report) -> None:
    """Migrate the database and collect the static files.

    The database is asked each time: it may have been restored or moved, and no stamp would know.
    Raises SetupError.
    """
    static = static_stamp(config)
    command = [sys.executable, "-m", "scipion_cloud.cli.prepare"]
    fresh = static.matches() and (config.home / "static").is_dir()
    stream(command if fresh else [*command, "--static"], report, what="Preparing the database")
    static.write()


def static_stamp(config: Config) -> Stamp:
    """Ties the collected static files to their sources."""
    files = sorted(path for path in STATIC.rglob("*") if path.is_file())
    sources = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    packages = [f"{name} {version(name)}" for name in ("django", "django-allauth")]
    return Stamp(
        config.home / "static.stamp", digest_of([*sources, *packages, npm.FOLDER / "package-lock.json"])
    )
