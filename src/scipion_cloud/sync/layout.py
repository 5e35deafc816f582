"""Where things are in a primary storage: the project's files under their own names, ours in one folder."""

import hashlib
import os
import unicodedata
import uuid
from datetime import UTC, datetime

from scipion_cloud.storage import Capabilities

SERVICE = ".scipion-cloud"
GENERATIONS = f"{SERVICE}/generations"
KEPT = f"{SERVICE}/kept"
LOCKS = f"{SERVICE}/locks"
INTENT = f"{SERVICE}/intent"
NAMES = f"{SERVICE}/names"
STRAYS = f"{SERVICE}/strays"
CLOCK = f"{SERVICE}/clock"
ARRIVING = f"{SERVICE}-arriving"  # how folders of a working copy begin whose content is still on its way


def key_of(path: bytes, capabilities: Capabilities) -> str:
    """The key of a file of the project: its own path if the storage can hold it, else its digest."""
    key = os.fsdecode(path)
    return key if _fits(path, key, capabilities) else f"{NAMES}/{hashlib.sha256(path).hexdigest()}"


def kept_key(digest: bytes) -> str:
    """Where the bytes with this digest are kept once no file of the newest generation holds them."""
    return f"{KEPT}/{digest.hex()}"


def stray_key() -> str:
    """A new key for a file that is no part of the project, but stood in its way; it tells when that was."""
    return f"{STRAYS}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex}"


def set_aside_at(key: str) -> datetime | None:
    """When a stray was set aside, which its own time does not say; None if its name does not tell."""
    try:
        return datetime.strptime(key.rpartition("/")[2][:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def generation_key(number: int) -> str:
    """Where a generation is."""
    return f"{GENERATIONS}/{number:010d}"


def lock_key(epoch: int) -> str:
    """Where the lease of an epoch is."""
    return f"{LOCKS}/{epoch:010d}.json"


def is_ours(path: bytes) -> bool:
    """Whether a path in a working copy would meet our own folder in the storage; such are never saved."""
    return path.split(b"/", 1)[0] == SERVICE.encode()


def _fits(path: bytes, key: str, capabilities: Capabilities) -> bool:
    parts = path.split(b"/")
    if len(path) > capabilities.max_key or max(map(len, parts)) > capabilities.max_name:
        return False
    if capabilities.byte_names:
        return True
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return (
        key.isprintable()  # no control characters, no line breaks
        and unicodedata.is_normalized("NFC", key)
        and not any(part != part.strip(b" ") or part.endswith(b".") for part in parts)
    )
