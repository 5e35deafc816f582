"""Debian packages: one list, with what each is for."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from scipion_cloud.errors import SetupError
from scipion_cloud.provision.process import Report, as_root, stream
from scipion_cloud.provision.steps import Step


@dataclass(frozen=True)
class Package:
    """A Debian package and the reason for which it is wanted."""

    name: str
    why: str


PROCESSING = (
    Package("relion", "motion correction and the other RELION programs"),
    Package("openmpi-bin", "mpirun, with which Scipion starts RELION"),
    Package("python3-tk", "Scipion's windows; pwem refuses to load without it even where there is no screen"),
)
DESKTOP = (
    Package("tigervnc-standalone-server", "Xtigervnc, the screen of a desktop"),
    Package("openbox", "window manager"),
    Package("tint2", "task bar"),
    Package("hsetroot", "background"),
    Package("xterm", "terminal"),
    Package("xauth", "the key to a desktop's screen"),
    Package("x11-utils", "xprop, which tells when Scipion's window is there"),
    Package("x11-xserver-utils", "xrdb, xset and xrandr"),
    Package("fonts-dejavu-core", "readable text in windows"),
    Package("libxcb-icccm4", "Scipion's Qt viewers"),
    Package("libxcb-keysyms1", "Scipion's Qt viewers"),
    Package("libxcb-xinerama0", "Scipion's Qt viewers"),
)
DATA = (
    Package("openssh-client", "ssh, by which projects on SFTP servers and other sites are reached"),
    Package("rsync", "files for jobs at other sites"),
)
SLURM = (
    Package("slurmctld", "Slurm's controller"),
    Package("slurmd", "Slurm on a node"),
    Package("slurm-client", "sbatch, squeue and the like"),
    Package("munge", "by which Slurm's programs know each other"),
    Package("libpmix-dev", "srun --mpi=pmix, which looks for a link that only this package has"),
)
TESTS = (
    Package("chromium", "browser tests"),
    Package("postgresql", "the database tests on PostgreSQL"),
    Package("nginx-light", "the portal behind a proxy"),
    Package("libnginx-mod-http-dav-ext", "WebDAV storages on nginx"),
    Package("curl", "the measure for uploads"),
    Package("openssl", "a certificate for the proxy"),
    Package("xclip", "the clipboard of a desktop"),
    Package("openssh-server", "an SFTP storage"),
    Package("strace", "system calls that are refused"),
    Package("radosgw", "an S3 storage: Ceph's gateway"),
    Package("ceph-mon", "the monitor of a Ceph cluster with that gateway"),
    Package("ceph-osd", "the disk, in memory, of that cluster"),
    Package("gridengine-master", "a second batch system"),
    Package("gridengine-exec", "its nodes"),
    Package("gridengine-client", "its commands"),
    Package("iproute2", "ip, with which nodes and sites of their own networks are made"),
    *SLURM,
)
RUNTIME = PROCESSING + DESKTOP + DATA


def is_debian() -> bool:
    """True where packages can be asked for and installed in Debian's way."""
    return shutil.which("dpkg-query") is not None and shutil.which("apt-get") is not None


def missing(packages: Iterable[Package]) -> list[str]:
    """Names of the packages that are not installed."""
    names = [package.name for package in packages]
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *names]
    # dpkg-query exits with 1 when it has never heard of one of them, and still lists the others
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    installed = {line.split()[0] for line in answer.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def install(names: list[str], report: Report) -> None:
    """Install packages, and nothing that they merely recommend. Raises SetupError."""
    install_command = ["apt-get", "install", "--yes", "--no-install-recommends", *names]
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    try:
        update = as_root(["apt-get", "update"])
    except SetupError as e:
        raise SetupError(
            "Debian packages are missing, and installing them needs an administrator. "
            f"Ask one to run:  {shlex.join(install_command)}"
        ) from e
    stream(update, report, what="Reading Debian's package lists")
    command = as_root(environment + install_command)
    stream(command, report, what="Installing Debian packages", env={"LC_ALL": "C.UTF-8"})


def step(packages: tuple[Package, ...]) -> Step:
    """The set-up step that installs what is missing of `packages`."""

    def done() -> bool:
        return is_debian() and not missing(packages)

    def work(report: Report) -> None:
        if not is_debian():
            report("not a Debian system: `scipion-cloud doctor` tells which programs are missing")
            return
        names = missing(packages)
        report(", ".join(names))
        install(names, report)

    return Step("Debian packages", done, work)


def advice(*names: str) -> str:
    """The command that installs packages by hand, as a remedy in a message."""
    prefix = "" if os.geteuid() == 0 else "sudo "
    return f"{prefix}apt-get install -y {' '.join(names)}"
