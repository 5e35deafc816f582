"""The programs that we start, and their versions."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from scipion_cloud.config import Config
from scipion_cloud.provision.apt import advice
from scipion_cloud.provision.checks.verdict import Check, missing, ok, warning

NUMBER = re.compile(r"\b\d+(?:\.\d+)*")


@dataclass(frozen=True)
class Program:
    """A program, the option that makes it tell its version, and the Debian package that brings it."""

    title: str
    name: str
    version: Sequence[str] | None  # None: it does not tell
    package: str


PROGRAMS = (
    Program("RELION", "relion_run_motioncorr", ["--version"], "relion"),
    Program("Open MPI", "mpirun", ["--version"], "openmpi-bin"),
    Program("TigerVNC", "Xtigervnc", ["-version"], "tigervnc-standalone-server"),
    Program("Window manager", "openbox", ["--version"], "openbox"),
    Program("Task bar", "tint2", ["-v"], "tint2"),
    Program("Background", "hsetroot", None, "hsetroot"),
    Program("Terminal", "xterm", ["-version"], "xterm"),
    Program("X key", "xauth", ["-V"], "xauth"),
)


def examine(_config: Config) -> list[Check]:
    """Python, uv, npm and everything of ours that Debian brings."""
    with ThreadPoolExecutor() as pool:
        return [_python(), _uv(), _npm(), *pool.map(_program, PROGRAMS)]


def _python() -> Check:
    return ok("Python", platform.python_version())


def _uv() -> Check:
    found = os.environ.get("UV") or shutil.which("uv")
    if found:
        return ok("uv", version_of([found, "--version"]))
    return missing("uv", "not found", "Start with ./scipion-cloud, which brings it, or set UV to its path.")


def _npm() -> Check:
    if shutil.which("node") and shutil.which("npm"):
        return ok("npm", f"{version_of(['npm', '--version'])} on Node {version_of(['node', '--version'])}")
    return ok("npm", "not installed; Node is fetched from PyPI when it is needed")


def _program(program: Program) -> Check:
    found = shutil.which(program.name)
    if not found:
        remedy = f"scipion-cloud up   (or: {advice(program.package)})"
        return missing(program.title, f"{program.name} not found", remedy)
    if program.version is None:
        return ok(program.title, found)
    version = version_of([found, *program.version])
    if not version:
        remedy = f"Run it by hand to see why; reinstall it with: {advice('--reinstall', program.package)}"
        return warning(program.title, f"{found} does not tell its version", remedy)
    return ok(program.title, version)


def version_of(command: Sequence[str]) -> str:
    """The first version number that a program prints; empty if it prints none."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = NUMBER.search(done.stdout + done.stderr)
    return found.group() if found else ""
