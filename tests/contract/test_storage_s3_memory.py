"""Large files to and from S3, eight at a time, in a small process."""

import json
import os
import subprocess
import sys
from pathlib import Path

from scipion_cloud.testing.servers.radosgw import Radosgw

MIB = 2**20
TRANSFERS = """\
import json, os, resource, sys
from concurrent.futures import ThreadPoolExecutor
from scipion_cloud.storage import open_storage
from scipion_cloud.storage.allocator import give_back_large_blocks

give_back_large_blocks()
path, url, credentials = sys.argv[1], sys.argv[2], json.loads(os.environ["CREDENTIALS"])
storage = open_storage(url, credentials, retry=False)

def there_and_back(n):
    with open(path, "rb") as content:
        storage.write(f"file{n}", content)
    with open(f"{path}.{n}", "wb") as target:
        return storage.download(f"file{n}", target.fileno())

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(8) as pool:
    done = list(pool.map(there_and_back, range(8)))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
storage.close()
print(json.dumps([done, after - before]))  # bytes, KiB
"""


def test_memory_is_bounded(s3_server: Radosgw, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(24 * MIB))
    command = [sys.executable, "-c", TRANSFERS, str(path), s3_server.url(s3_server.bucket())]
    env = {**os.environ, "CREDENTIALS": json.dumps(s3_server.credentials)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=600)
    sizes, kib = json.loads(done.stdout)
    assert sizes == [24 * MIB] * 8
    assert kib < 150 * 1024
    for n in range(8):
        assert (tmp_path / f"file.{n}").read_bytes() == path.read_bytes()
