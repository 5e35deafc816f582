"""The variables with which Scipion starts at a site."""

import os
from pathlib import Path

from scipion_cloud.sites.model import Site

_SYSTEM = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def scipion_environment(site: Site) -> dict[str, str]:
    """What a process of Scipion needs at a site that is not home; the site's own `env` goes before it.

    `PATH` begins with Scipion's Python, because Scipion calls a bare `python3`.
    """
    folders = [*([str(site.scipion.parent)] if site.scipion else []), *_SYSTEM]
    found = {
        "PATH": os.pathsep.join(folders),
        "LANG": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
        "SCIPION_NOTIFY": "False",  # nothing is reported to anyone
        "SCIPION_DOMAIN": "pwem",
        "SCIPION_PRIORITY_PACKAGE_LIST": "pwem",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",  # mpirun refuses to work for root otherwise
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    if site.scipion:
        found["SCIPION_PYTHON"] = str(site.scipion)
    if site.scipion_home:
        found |= _of_home(site.scipion_home)
    return {**found, **site.env}


def _of_home(home: Path) -> dict[str, str]:
    config = home / "config"
    return {
        "SCIPION_HOME": str(home),
        "SCIPION_CONFIG": str(config / "scipion.conf"),
        "SCIPION_LOCAL_CONFIG": str(config / "scipion.conf"),
        "SCIPION_HOSTS": str(config / "hosts.conf"),
        "SCIPION_PROTOCOLS": str(config / "protocols.conf"),
        "EM_ROOT": str(home / "software" / "em"),
    }
