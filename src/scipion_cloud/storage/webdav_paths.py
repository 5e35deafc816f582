"""Paths in URLs: how we write them, and how we read what servers make of them."""

import os
import re
import unicodedata
from urllib.parse import quote, unquote_to_bytes


def encoded_path(path: str) -> str:
    """A path for a URL: every byte of its parts that could mean anything there is percent-encoded."""
    return quote(os.fsencode(path), safe="/")


def decoded_path(href: str, folder: str) -> str:
    """The path, without slashes at its ends, that a server means with an href in an answer about `folder`.

    An href may be a URL, an absolute or a relative path; some servers write two slashes for one.
    """
    path = re.sub(r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/]*", "", href)
    path = re.sub(r"[?#].*", "", path, flags=re.DOTALL)
    name = os.fsdecode(unquote_to_bytes(path))
    if not path.startswith("/") and path == href:
        name = f"{folder}/{name}"
    return re.sub("/+", "/", name).strip("/")


def same_path(one: str, other: str) -> bool:
    """Whether two paths are one to a server that composes accents in its own way."""
    return one == other or unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
