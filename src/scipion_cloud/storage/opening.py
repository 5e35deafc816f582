"""From a URL and credentials to a storage."""

import importlib
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from scipion_cloud.errors import InvalidInput
from scipion_cloud.storage.base import Storage
from scipion_cloud.storage.kinds import KINDS, kind_of
from scipion_cloud.storage.retrying import Retrying


class Backend(Protocol):
    """The module of a kind of storage: `scipion_cloud.storage.<kind's id>`."""

    def connect(self, url: SplitResult, credentials: Mapping[str, str]) -> Storage:
        """Open the storage; may not yet talk to the server. Raises InvalidInput."""
        ...


def open_storage(url: str, credentials: Mapping[str, str] | None = None, *, retry: bool = True) -> Storage:
    """Open the storage at `url`, trying again what may succeed later unless `retry` is False.

    Raises InvalidInput for a URL or credentials that cannot be right; the server may not be asked yet.
    """
    storage = connect(url, credentials or {})
    return Retrying(storage) if retry else storage


def connect(url: str, credentials: Mapping[str, str]) -> Storage:
    """The bare storage at `url`. Raises InvalidInput."""
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError as e:
        raise InvalidInput(errors={"url": f"{url!r} is not a URL: {e}."}) from e
    kind = kind_of(parts.scheme)
    if kind is None:
        examples = ", ".join(k.example for k in KINDS)
        raise InvalidInput(errors={"url": f"{url!r} is not the URL of a storage. Such are: {examples}."})
    if parts.password or parts.query or parts.fragment:
        raise InvalidInput(
            errors={"url": "Leave the password, '?' and '#' out of the URL; secrets are given apart from it."}
        )
    known = {c.name for c in kind.credentials}
    if unknown := sorted(set(credentials) - known):
        takes = ", ".join(sorted(known)) or "no credentials"
        raise InvalidInput(f"{kind.label} knows no {', '.join(unknown)}; it takes {takes}.")
    given = {name: value for name, value in credentials.items() if value}
    needed = [c for c in kind.credentials if c.required and c.name not in given]
    if needed:
        raise InvalidInput(errors={c.name: f"{c.label} is needed." for c in needed})
    backend: Backend = importlib.import_module(f"scipion_cloud.storage.{kind.id}")
    return backend.connect(parts, given)
