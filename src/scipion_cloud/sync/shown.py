"""Which links a storage shows, so that a person who copies it by hand has them."""

import os

from scipion_cloud.storage import Capabilities
from scipion_cloud.sync.entry import Entry, EntryKind, parent_of
from scipion_cloud.sync.layout import NAMES, key_of


def shown_link(entry: Entry, capabilities: Capabilities) -> bytes | None:
    """What the storage's symlink for an entry says; None if the entry is only in the manifest.

    A hard link is shown as a symlink to the file. A link into the source is not shown, since nobody knows
    where the source is for whom.
    """
    if not capabilities.symlinks or not entry.target or _unnamed(entry.path, capabilities):
        return None
    if entry.kind is EntryKind.LINK:
        return entry.target
    if entry.kind is EntryKind.HARD_LINK and not _unnamed(entry.target, capabilities):
        return os.path.relpath(b"/" + entry.target, b"/" + parent_of(entry.path))
    return None


def _unnamed(path: bytes, capabilities: Capabilities) -> bool:
    return key_of(path, capabilities).startswith(NAMES)
