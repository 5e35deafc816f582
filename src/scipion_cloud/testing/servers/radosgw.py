"""Ceph's S3 gateway on a cluster of our own: one monitor, one disk in memory. Up in about three seconds.

with radosgw() as server:
    storage = open_storage(server.url(server.bucket()), server.credentials)
"""

import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scipion_cloud.errors import SetupError
from scipion_cloud.testing.servers.daemon import daemon, free_port
from scipion_cloud.testing.servers.s3server import ACCESS_KEY, SECRET_KEY, S3Server

PROGRAMS = ("ceph", "ceph-authtool", "monmaptool", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
GIB = 2**30
# One copy of everything, few placement groups, and a monitor that does not wait a second for each change: so
# the gateway's pools are there at once. radosgw does not run without keys (cephx), so everybody has one.
SETTINGS = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port}]
mon initial members = a
keyring = {folder}/keyring
run dir = {folder}
admin socket = {folder}/$name.$pid.asok
log file = {folder}/$name.log
pid file =
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = {size}
osd data = {folder}/osd
osd class update on start = false
mon data = {folder}/mon
mon data avail crit = 1
mon allow pool size one = true
paxos propose interval = 0.01
paxos min wait = 0.01
public addr = 127.0.0.1
[client]
rgw frontends = beast endpoint=127.0.0.1:{gateway} tcp_nodelay=1
"""
KEYS = {
    "mon.": ("mon",),
    "osd.0": ("mon", "osd"),
    "client.admin": ("mon", "osd", "mgr"),
}


@dataclass(frozen=True)
class Radosgw(S3Server):
    """A running gateway."""

    cluster: "_Cluster" = field(kw_only=True, repr=False)

    def limit(self, bucket: str, objects: int) -> None:
        """Give a bucket a quota."""
        for step in (["set", f"--max-objects={objects}"], ["enable"]):
            what = ["--quota-scope=bucket", "--bucket", bucket]
            self.cluster.run("radosgw-admin", *self.cluster.conf, "quota", *step, *what)


@contextmanager
def radosgw(size: int = 8 * GIB) -> Iterator[Radosgw]:
    """Run a gateway that holds up to `size` bytes. All of it ends with the block, or with us.

    Raises SetupError where Ceph's programs are missing or do not start.
    """
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise SetupError(f"{', '.join(missing)}: missing. Run: apt-get install -y radosgw ceph-mon ceph-osd")
    with tempfile.TemporaryDirectory(prefix="ceph-", ignore_cleanup_errors=True) as name:
        cluster = _Cluster(Path(name), size)
        cluster.make()
        with (
            daemon(["ceph-mon", "-f", "--id", "a", *cluster.conf], cluster.folder / "mon.out"),
            cluster.disk(),
            daemon(["radosgw", "-f", *cluster.conf], cluster.folder / "gateway.out", port=cluster.gateway),
        ):
            cluster.add_user(ACCESS_KEY, SECRET_KEY)
            yield Radosgw(cluster.gateway, cluster=cluster)


class _Cluster:
    """The folder of a cluster, and the commands that are given to it."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.fsid = str(uuid.uuid4())
        self.port = free_port()
        self.gateway = free_port()
        self.conf = ("--conf", str(folder / "ceph.conf"))
        settings = SETTINGS.format(
            fsid=self.fsid, folder=folder, port=self.port, gateway=self.gateway, size=size
        )
        (folder / "ceph.conf").write_text(settings)

    def make(self) -> None:
        """Keys, and the monitor's own folder."""
        keyring, monmap = self.folder / "keyring", self.folder / "monmap"
        for who, services in KEYS.items():
            create = [] if keyring.exists() else ["--create-keyring"]
            may = [word for service in services for word in ("--cap", service, "allow *")]
            self.run("ceph-authtool", *create, str(keyring), "--gen-key", "-n", who, *may)
        address = f"[v2:127.0.0.1:{self.port}]"
        self.run("monmaptool", "--create", "--fsid", self.fsid, "--addv", "a", address, str(monmap))
        (self.folder / "mon").mkdir()
        mkfs = ["--mkfs", "--id", "a", "--monmap", str(monmap), "--keyring", str(keyring)]
        self.run("ceph-mon", *mkfs, *self.conf)

    @contextmanager
    def disk(self) -> Iterator[None]:
        """Make and run the only disk."""
        disk = str(uuid.uuid4())
        self.run("ceph", *self.conf, "osd", "new", disk)
        (self.folder / "osd").mkdir()
        self.run("ceph-osd", "--mkfs", "--id", "0", "--osd-uuid", disk, *self.conf)
        with daemon(["ceph-osd", "-f", "--id", "0", *self.conf], self.folder / "osd.out"):
            yield

    def add_user(self, access_key: str, secret_key: str) -> None:
        """Let somebody in."""
        who = ["--uid", access_key.lower(), "--display-name", access_key, "--access-key", access_key]
        self.run("radosgw-admin", *self.conf, "user", "create", *who, "--secret-key", secret_key)

    def run(self, *command: str) -> None:
        done = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise SetupError(f"{command[0]} failed: {done.stderr.strip()[-2000:] or done.stdout.strip()}")
