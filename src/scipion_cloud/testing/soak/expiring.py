"""Lets go of old generations, in a process that can be killed.

python -m scipion_cloud.testing.soak.expiring: URL and credentials as JSON on the standard input; prints what
has expired.
"""

import json
import sys
from datetime import UTC, datetime, timedelta

from scipion_cloud.storage import open_storage
from scipion_cloud.sync.lease import acquire
from scipion_cloud.sync.repository import Repository
from scipion_cloud.sync.retention import Retention, expire

KEEP = Retention(timedelta(seconds=45), timedelta(0), timedelta(0))


def main() -> None:
    """Lock the project, expire, unlock it."""
    url, credentials = json.load(sys.stdin)
    with open_storage(url, credentials) as storage:
        lease = acquire(
            storage,
            deployment="soak-expiring",
            host="soak",
            user="soak",
            parameters={},
            ttl=timedelta(seconds=30),
        )
        expire(Repository(storage), lease, KEEP, datetime.now(UTC))
        lease.release()


if __name__ == "__main__":
    main()
