"""One save or restore by Scipion Cloud, in a process of its own.

    python benchmarks/_ours.py save|restore URL FOLDER [--again N]

Credentials are in SCB_CREDENTIALS as JSON. As `scipion-cloud data` does it: with the project's lock, and
nothing is remembered but what the working copy's state has. With --again the save is made so many times more,
as an agent would; prints the seconds of each, and those of the processor, as JSON.
"""

import json
import os
import sys
import time
from pathlib import Path

from scipion_cloud.storage import open_storage
from scipion_cloud.sync.copy import WorkingCopy
from scipion_cloud.sync.lease import acquire
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.restore import restore
from scipion_cloud.sync.save import save


def main(action: str, url: str, folder: Path, again: int) -> list[tuple[float, float]]:
    """Do it; s and s of the processor of each further save."""
    storage = open_storage(url, json.loads(os.environ.get("SCB_CREDENTIALS", "{}")))
    repository, copy = Repository(storage), WorkingCopy(folder, folder.with_name(f".{folder.name}.agent"))
    times = []
    if action == "restore":
        latest = repository.latest()
        assert latest is not None  # noqa: S101 - it was saved before
        restore(repository, latest, copy)
    else:
        lease = acquire(storage, deployment="bench", host="bench", user="bench", parameters={})
        lease.start()
        if copy.marker is None:
            copy.begin(storage.url, None, Manifest())
            copy.complete()
        done = save(copy, repository, lease)
        for _ in range(again):
            start = time.monotonic(), time.process_time()
            save(copy, repository, lease)
            times.append((time.monotonic() - start[0], time.process_time() - start[1]))
        lease.release(lease.generation)
        if done.problems:
            print(done.problems[:5], file=sys.stderr)
    copy.close()
    storage.close()
    return times


if __name__ == "__main__":
    more = int(sys.argv[5]) if sys.argv[4:5] == ["--again"] else 0
    print(json.dumps(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), more)))
