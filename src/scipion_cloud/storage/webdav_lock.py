"""WebDAV's LOCK: the one thing that is exclusive on all servers that have it."""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx

from scipion_cloud.errors import StorageError, StorageTransient
from scipion_cloud.storage.http import Http
from scipion_cloud.storage.webdav_xml import LOCKINFO

LOCK_SECONDS = 60  # asked for; the server may give less
PATIENCE = 30.0  # s that we wait for somebody else's lock


@contextmanager
def locked(http: Http, url: str, waiting: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Hold the exclusive lock on the file at `url`, in which nothing is kept.

    `waiting` is called while somebody else holds it, and may raise to give up. The block gets a function that
    raises StorageTransient when half of the lock's time is over: then what depends on it must not be done.
    Raises StorageTransient if it cannot be had, StorageError.
    """
    asked, response = _lock(http, url, waiting)
    token = response.headers.get("Lock-Token", "")
    if not token:
        raise StorageError(f"{http.name} grants a lock without a token.")
    granted = re.search(rb"Second-(\d{1,9})", response.content)
    seconds = int(granted[1]) if granted else LOCK_SECONDS

    def check() -> None:
        if time.monotonic() - asked > seconds / 2:
            raise StorageTransient(f"{http.name} is so slow that a lock on it may have run out.")

    try:
        yield check
    finally:
        with suppress(StorageError):
            http.send("UNLOCK", url, {"Lock-Token": token})


def _lock(http: Http, url: str, waiting: Callable[[], None]) -> tuple[float, httpx.Response]:
    headers = {"Depth": "0", "Timeout": f"Second-{LOCK_SECONDS}", "Content-Type": "application/xml"}
    deadline = time.monotonic() + PATIENCE
    while True:
        asked = time.monotonic()
        response = http.send("LOCK", url, headers, LOCKINFO)
        if response.is_success:
            return asked, response
        if response.status_code != 423 or time.monotonic() > deadline:
            raise http.refuse(response, "lock")
        waiting()
        time.sleep(random.uniform(0.02, 0.2))  # noqa: S311 - only that not all ask at once
