"""The browser's packages (noVNC, Uppy, htmx, the Inter typeface), pinned by digest in package-lock.json."""

from pathlib import Path

import scipion_cloud
from scipion_cloud.provision.process import Report, stream
from scipion_cloud.provision.programs import npm_command
from scipion_cloud.provision.steps import Stamp, Step, digest_of

FOLDER = Path(scipion_cloud.__file__).parent / "portal" / "web"
MODULES = FOLDER / "node_modules"


def stamp() -> Stamp:
    """Ties the installed packages to the lock file."""
    return Stamp(MODULES / ".scipion-cloud", digest_of([FOLDER / "package-lock.json"]))


def install(report: Report) -> None:
    """Put the locked packages under `portal/web/node_modules`; none may run a script. Raises SetupError."""
    options = ["ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"]
    stream([*npm_command(), *options], report, what="Fetching the browser's packages", cwd=FOLDER)
    stamp().write()


def step() -> Step:
    """The set-up step for the browser's packages."""
    return Step("Browser packages", lambda: stamp().matches(), install)
