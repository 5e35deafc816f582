"""The S3 servers of the tests: what they are there for, and that nothing of them is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from scipion_cloud.storage import open_storage
from scipion_cloud.storage.selftest import create_is_exclusive
from scipion_cloud.testing.servers.radosgw import Radosgw
from scipion_cloud.testing.servers.rclone import rclone_s3

OWNER = """\
import psutil, time
from scipion_cloud.testing.servers.radosgw import radosgw
with radosgw():
    print(*[process.pid for process in psutil.Process().children()], flush=True)
    time.sleep(600)
"""


def test_nothing_of_ceph_outlives_its_owner(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        servers = [psutil.Process(pid) for pid in pids]
        assert {server.name() for server in servers} == {"ceph-mon", "ceph-osd", "radosgw"}
        owner.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(servers, timeout=120)
    assert not alive


def test_rclone_creates_over_what_is_there(tmp_path: Path) -> None:
    """The lock must not trust such a server: nothing is told about what is lost."""
    with rclone_s3(tmp_path) as server:
        url = server.url(server.bucket())
        with open_storage(url, server.credentials, retry=False) as storage:
            storage.create("locks/1", b"mine")
            storage.create("locks/1", b"yours")
            assert storage.read_bytes("locks/1") == b"yours"
            assert not create_is_exclusive(storage)


def test_real_gateways_refuse_to(s3_server: Radosgw) -> None:
    with open_storage(s3_server.url(s3_server.bucket()), s3_server.credentials, retry=False) as storage:
        assert create_is_exclusive(storage)
