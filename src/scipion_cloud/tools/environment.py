"""The environment of every Scipion process: bridge calls, runs and desktops see the same Scipion."""

import os
import shutil
import sys
from pathlib import Path

from scipion_cloud.config import ENV_PREFIX, Config
from scipion_cloud.errors import ConfigError

# What a Scipion process may inherit. A list of what is wanted, because the portal's own variables
# hold secrets (database passwords) and Python settings that break another interpreter.
_INHERITED = {
    "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS", "XDG_RUNTIME_DIR",
}  # fmt: skip
_INHERITED_PREFIXES = ("LC_", "CUDA_", "SLURM_", "OMPI_MCA_")


def scipion_settings(software: Path) -> dict[str, str]:
    """Scipion's own settings for the installation in `software`; `scipion.conf` holds the same ones."""
    home = software / "scipion"
    engines = home / "software" / "em"
    return {
        "SCIPION_NOTIFY": "False",  # nothing is reported to anyone
        "SCIPION_USE_QUEUE": "True",  # desktops send their protocols to the batch system by default
        "SCIPION_PRIORITY_PACKAGE_LIST": "pwem",
        "EM_ROOT": str(engines),
        "RELION_HOME": str(engines / "relion-3.1"),  # the plugin reads RELION's version from this name
    }


def scipion_environ(config: Config, projects_root: Path) -> dict[str, str]:
    """The full environment of a Scipion process.

    `projects_root` is the folder whose entries Scipion lists as projects; it must be called `projects`,
    because Scipion finds it as SCIPION_USER_DATA/projects. Raises ConfigError otherwise.
    """
    if projects_root.name != "projects":
        raise ConfigError(
            f"Scipion's list of projects must be a folder called 'projects', not {projects_root}."
        )
    home = config.scipion_home
    conf = home / "config" / "scipion.conf"
    environ = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    environ.setdefault("LANG", "C.UTF-8")
    environ |= scipion_settings(config.software)
    environ |= {
        "PATH": _path(config),
        "PYTHONNOUSERSITE": "1",
        "MPLCONFIGDIR": str(home / "cache" / "matplotlib"),
        "SCIPION_HOME": str(home),
        "SCIPION_CONFIG": str(conf),
        "SCIPION_LOCAL_CONFIG": str(conf),
        "SCIPION_HOSTS": str(
            hosts_file(config) if hosts_file(config).exists() else conf.with_name("hosts.conf")
        ),
        "SCIPION_PROTOCOLS": str(conf.with_name("protocols.conf")),
        "SCIPION_DOMAIN": "pwem",
        "SCIPION_PYTHON": str(config.scipion_python),
        "SCIPION_USER_DATA": str(projects_root.parent),
        "SCIPION_LOGS": str(projects_root.parent / "logs" / "scipion"),
        # mpirun refuses to work for root otherwise; containers are often root.
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        ENV_PREFIX + "HOME": str(config.home),
        ENV_PREFIX + "SOFTWARE": str(config.software),
    }
    return environ


def hosts_file(config: Config) -> Path:
    """Scipion's `hosts.conf` of this home, which has its own sites; the installation's stands in for it."""
    return config.home / "scipion-hosts.conf"


def command_folder() -> Path | None:
    """The folder of the `scipion-cloud` command of this installation; None where there is no such command."""
    beside = Path(sys.executable).with_name("scipion-cloud")
    if beside.exists():
        return beside.parent
    found = shutil.which("scipion-cloud")
    return Path(found).parent if found else None


def _path(config: Config) -> str:
    """PATH: Scipion's Python first (it calls bare `python3`), then `scipion-cloud`, then the system."""
    command = command_folder()
    system = os.environ.get("PATH", os.defpath).split(os.pathsep)
    folders = [str(config.scipion_python.parent), *([str(command)] if command else []), *system]
    return os.pathsep.join(dict.fromkeys(folder for folder in folders if folder))
