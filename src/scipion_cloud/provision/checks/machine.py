"""The machine itself: folders, disk, port, memory, clock, language."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from scipion_cloud.config import ENV_PREFIX, Config
from scipion_cloud.provision import home
from scipion_cloud.provision.checks.verdict import Check, missing, ok, warning
from scipion_cloud.provision.ports import owner

GIB = 1024**3
HOME_WANTS = 20 * GIB  # a small session of movies
SOFTWARE_WANTS = 3 * GIB  # Scipion's environment while it is being made
LEAST = 1 * GIB
MEMORY_WANTS = 7 * GIB  # RELION takes 5.4 GiB for one movie of 4k x 4k x 40
LONGEST_HOME = 60  # bytes; the desktops' sockets lie below it, and a socket's path ends at 107


def folders(config: Config) -> list[Check]:
    """Ours, private, writable, and with a name that Scipion's shell scripts can bear."""
    name = "Home folder"
    path = str(config.home.absolute())
    if not config.home.exists():
        return [warning(name, f"{path} does not exist yet", "scipion-cloud up makes it")]
    open_ones = [str(f) for f in home.folders(config) if f.exists() and f.stat().st_mode & 0o077]
    if not os.access(config.home, os.W_OK | os.X_OK):
        return [
            missing(name, f"{path} cannot be written", f"chown it to you, or choose another {ENV_PREFIX}HOME")
        ]
    if open_ones:
        remedy = f"chmod 700 {' '.join(open_ones)}"
        return [warning(name, f"others can look into {', '.join(open_ones)}", remedy)]
    if not re.fullmatch(r"[\w./+@=,-]+", path):
        remedy = f"Choose a path of letters, digits and ./_-+ with {ENV_PREFIX}HOME."
        return [warning(name, f"Scipion's scripts may stumble over the characters in {path}", remedy)]
    if len(os.fsencode(path)) > LONGEST_HOME:
        remedy = f"Choose a path of at most {LONGEST_HOME} bytes with {ENV_PREFIX}HOME."
        return [warning(name, f"{path} is too long for the desktops' sockets", remedy)]
    return [ok(name, f"{path}, private")]


def disk(config: Config) -> list[Check]:
    """Room for the data, and for the software until it is installed."""
    wanted = [("Disk of the home", config.home, HOME_WANTS)]
    if not config.scipion_python.exists():
        wanted.append(("Disk of the software", config.software, SOFTWARE_WANTS))
    return [_room(name, folder, wants) for name, folder, wants in wanted]


def _room(name: str, folder: Path, wants: int) -> Check:
    there = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())
    free = shutil.disk_usage(there).free
    detail = f"{free / GIB:.0f} GiB free for {folder}"
    remedy = f"Free at least {wants / GIB:.0f} GiB there, or choose another disk."
    if free < min(LEAST, wants):
        return missing(name, detail, remedy)
    return ok(name, detail) if free >= wants else warning(name, detail, remedy)


def port(config: Config) -> list[Check]:
    """Free, or in use by ourselves."""
    name = f"Port {config.port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family).close()
    except OSError as e:
        holder = owner(config.port)
        if holder and _is_ours(holder, config):
            return [ok(name, f"ours (process {holder.pid})")]
        who = f"by process {holder.pid}, {' '.join(holder.cmdline()[:2])}" if holder else f"({e.strerror})"
        remedy = f"scipion-cloud up --port {config.port + 1}, or stop what uses it"
        return [missing(name, f"{config.host}:{config.port} cannot be had {who}", remedy)]
    return [ok(name, f"{config.host}:{config.port} is free")]


def _is_ours(process: psutil.Process, config: Config) -> bool:
    try:
        return process.environ().get(f"{ENV_PREFIX}HOME") == str(config.home.absolute())
    except psutil.Error:
        return False


def computer(config: Config) -> list[Check]:
    """Processors and memory, as far as jobs may use them."""
    cpus = config.cpus or len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().total
    few = warning("Processors", f"{cpus}", "Runs will be slow and share one core with the portal.")
    small = "Large movies need more: RELION takes 5.4 GiB for one of 4k x 4k x 40."
    detail = f"{memory / GIB:.1f} GiB"
    return [
        ok("Processors", f"{cpus}") if cpus >= 2 else few,
        ok("Memory", detail) if memory >= MEMORY_WANTS else warning("Memory", detail, small),
    ]


def clock(_config: Config) -> list[Check]:
    """Sign-in links, desktop tickets and TLS all hang on the time."""
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    remedy = "Set the clock, best by a time service: apt-get install -y systemd-timesyncd"
    if time.time() < Path(__file__).stat().st_mtime - 60:
        return [warning("Clock", f"{now}, which is before this program was installed", remedy)]
    return (
        [ok("Clock", now)] if _is_synchronised() else [warning("Clock", f"{now}, not synchronised", remedy)]
    )


def _is_synchronised() -> bool:
    """False only where the system says so; a container knows nothing of it."""
    if not Path("/run/systemd/system").exists() or not shutil.which("timedatectl"):
        return True
    ask = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.strip() != "no"


def locale(_config: Config) -> list[Check]:
    """File names are UTF-8 everywhere."""
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return [ok("Language", os.environ.get("LC_ALL") or os.environ.get("LANG") or "C.UTF-8")]
    return [
        warning("Language", f"file names are taken as {encoding}", "export LANG=C.UTF-8, then start again")
    ]
