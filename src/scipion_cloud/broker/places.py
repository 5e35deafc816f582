"""Where things of this installation lie in a site's area.

projects/HOME-NAME/...    what a project's jobs read and write there, with the same relative paths as at home
runs/HOME-JOB-ATTEMPT/    how a job starts
"""

import hashlib
import os
import secrets
from pathlib import Path

from scipion_cloud.config import Config


def home_id(config: Config) -> str:
    """What tells this installation from others that use the same site; made on first use."""
    file = config.home / "home-id"
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        config.home.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".home-id-{os.getpid()}-{secrets.token_hex(4)}")
        new.write_text(secrets.token_hex(4))
        try:
            os.link(new, file)  # the first one wins
        except FileExistsError:
            pass
        finally:
            new.unlink()
        return file.read_text().strip()


def project_place(config: Config, root: Path) -> str:
    """Where a folder is at every site, below its area; different for different folders."""
    mark = hashlib.sha256(os.fsencode(root)).hexdigest()[:8]
    name = root.name if root.parent == config.projects else f"{mark}-{root.name}"
    return f"projects/{home_id(config)}-{name}"


def run_place(config: Config, job: int, attempt: int) -> str:
    """Where an attempt at a job starts."""
    return f"runs/{home_id(config)}-{job}-{attempt}"


def ledger_file(config: Config, site: str) -> Path:
    """Where home notes what of ours lies at a site."""
    return config.home / "sites" / f"{site}.sqlite"


def default_source(config: Config, root: Path) -> Path:
    """Where the read-only dataset of an open project is, if it has one."""
    return config.agents / root.name / "source"
