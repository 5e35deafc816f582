"""Onezone: which spaces a token opens, and which Oneprovider we go to."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipion_cloud.errors import InvalidInput, StorageDenied, StorageError, StorageTransient
from scipion_cloud.storage.http import Http

OLDEST = (21, 2, 1)  # before it there are neither links nor names with a space's id in them
CAMEL_CASE = (21, 2, 5)  # since then attributes are fileId, not file_id


@dataclass(frozen=True)
class Provider:
    """A Oneprovider that supports a space."""

    id: str
    domain: str  # with a port, maybe
    version: tuple[int, ...]
    online: bool
    readonly: bool  # its support of the space

    @property
    def camel_case(self) -> bool:
        """Which of the two dialects it speaks."""
        return self.version >= CAMEL_CASE


@dataclass(frozen=True)
class Space:
    """A space that a token opens."""

    id: str
    name: str
    providers: tuple[Provider, ...]

    @property
    def full_name(self) -> str:
        """The name that paths begin with; unlike the name alone it is unique."""
        return f"{self.name}@{self.id}"


def spaces(http: Http, base: str, token: str) -> list[Space]:
    """The spaces of a token. `base` is Onezone's address, as https://host.

    Raises StorageDenied for a token that is none or no longer one, StorageTransient, StorageError.
    """
    url = f"{base}/api/v3/onezone/tokens/infer_access_token_scope"
    headers = {"Content-Type": "application/json"}
    response = http.send("POST", url, headers, json.dumps({"token": token}).encode())
    if response.status_code in (400, 401, 403):
        raise StorageDenied(f"{http.name} does not know this access token. Make a new one there.")
    if not response.is_success:
        raise http.refuse(response, "tell what the token allows")
    try:
        scope = response.json()["dataAccessScope"]
        found = [_space(id_, space, scope["providers"]) for id_, space in scope["spaces"].items()]
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise StorageError(f"{http.name} does not answer as Onezone does. Check its address.") from e
    return sorted(found, key=lambda space: (space.name, space.id))


def choose_space(found: list[Space], wanted: str) -> Space:
    """The space with this id, or else with this name. Raises InvalidInput unless there is just one."""
    named = [space for space in found if space.id == wanted] or [s for s in found if s.name == wanted]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(space.id for space in named)
        raise InvalidInput(
            errors={"url": f"There are {len(named)} spaces {wanted!r}. Put the id in the URL: {ids}."}
        )
    names = ", ".join(repr(space.name) for space in found) or "none"
    raise InvalidInput(errors={"url": f"The token opens no space {wanted!r}. It opens: {names}."})


def choose_provider(space: Space, wanted: str) -> Provider:
    """The Oneprovider with this domain or id; without one the newest that is fit, the same for everybody.

    Raises InvalidInput, StorageTransient if all are away, StorageError if none is fit.
    """
    known = [p for p in space.providers if not wanted or wanted.lower() in (p.domain.lower(), p.id.lower())]
    if not known:
        domains = ", ".join(p.domain for p in space.providers) or "none"
        raise InvalidInput(
            errors={"provider": f"{wanted} does not support the space {space.name!r}. These do: {domains}."}
        )
    fit = [p for p in known if p.version >= OLDEST]
    if not fit:
        raise StorageError(f"All Oneproviders of the space {space.name!r} are older than 21.02.1.")
    writable = [p for p in fit if not p.readonly] or fit
    online = [p for p in writable if p.online]
    if not online:
        raise StorageTransient(f"No Oneprovider of the space {space.name!r} is online.")
    return max(online, key=lambda p: (p.version, p.id))


def _space(id_: str, space: Mapping[str, Any], providers: Mapping[str, Any]) -> Space:
    supports = [
        _provider(key, providers[key], bool(how.get("readonly"))) for key, how in space["supports"].items()
    ]
    return Space(id_, str(space["name"]), tuple(sorted(supports, key=lambda p: p.id)))


def _provider(id_: str, told: Mapping[str, Any], readonly: bool) -> Provider:
    version = tuple(map(int, re.findall(r"\d+", str(told["version"]))[:3]))
    return Provider(id_, str(told["domain"]), version, bool(told["online"]), readonly)
