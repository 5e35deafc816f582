"""What the set-up made: the browser's packages, the Scipion environment, the database."""

import os
import re
import subprocess
import sys

from scipion_cloud.config import ENV_PREFIX, Config
from scipion_cloud.provision import apt, npm
from scipion_cloud.provision.checks.verdict import Check, missing, ok, warning
from scipion_cloud.provision.scipion import check_scipion

UP = "scipion-cloud up"
SETTINGS = "--settings=scipion_cloud.portal.settings"


def packages(_config: Config) -> list[Check]:
    """Debian's packages and the browser's."""
    checks = []
    if apt.is_debian():
        absent = apt.missing(apt.RUNTIME)
        why = {package.name: package.why for package in apt.RUNTIME}
        if absent:
            detail = "; ".join(f"{name} ({why[name]})" for name in absent)
            checks.append(missing("Debian packages", detail, f"{UP}   (or: {apt.advice(*absent)})"))
        else:
            checks.append(ok("Debian packages", f"{len(apt.RUNTIME)} of {len(apt.RUNTIME)}"))
    else:
        remedy = "Install the programs that are missing above with this system's own tools."
        checks.append(warning("Debian packages", "this is not a Debian system", remedy))
    if npm.stamp().matches():
        checks.append(ok("Browser packages", "as locked"))
    else:
        checks.append(missing("Browser packages", "not installed, or out of date", UP))
    return checks


def scipion(config: Config) -> list[Check]:
    """The Scipion environment, by starting it."""
    found = check_scipion(config.software)
    if found.problems:
        return [missing("Scipion", "\n".join(found.problems), UP)]
    # RELION's own version stands among the programs
    versions = [f"{name} {version}" for name, version in found.versions.items() if name != "RELION"]
    return [ok("Scipion", "\n".join(versions))]


def database(config: Config) -> list[Check]:
    """Whether the database answers, and is of this version."""
    name = "Database"
    if config.database == "sqlite" and not (config.home / "db.sqlite3").exists():
        return [missing(name, "SQLite, not made yet", UP)]
    kind = "SQLite" if config.database == "sqlite" else "PostgreSQL"
    command = [sys.executable, "-m", "django", "migrate", "--check", "--skip-checks", SETTINGS]
    environ = {**os.environ, f"{ENV_PREFIX}HOME": str(config.home.absolute())}
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return [missing(name, f"{kind} did not answer within 60 s", "See whether its server runs.")]
    if done.returncode == 0:
        return [ok(name, f"{kind}, up to date")]
    if not done.stderr.strip():
        return [missing(name, f"{kind}, made by an older version", f"{UP} brings it up to date")]
    remedy = "Check the setting `database` (scipion-cloud config show) and the database server."
    return [missing(name, f"{kind} cannot be used: {_reason(done.stderr)}", remedy)]


def _reason(traceback: str) -> str:
    """The first line of the error that ended a program: later ones are hints."""
    lines = traceback.strip().splitlines()
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Configured): ", line)]
    return (errors or lines)[-1]
