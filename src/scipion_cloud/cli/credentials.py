"""Tokens of the servers that this person signed in to, readable by nobody else."""

import json
import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, RootModel, ValidationError

from scipion_cloud.errors import ConfigError

SERVER_VARIABLE = "SCIPION_CLOUD_SERVER"
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Credential(BaseModel):
    """Who is signed in at a server, and the proof."""

    email: str
    token: str


class _Stored(RootModel[dict[str, Credential]]):
    """The file: server address -> credential."""


def credentials_file() -> Path:
    """Where the tokens are kept, with mode 0600."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "scipion-cloud" / "credentials.json"


def read_credentials() -> dict[str, Credential]:
    """All stored credentials by server address. Raises ConfigError if the file cannot be understood."""
    file = credentials_file()
    try:
        return _Stored.model_validate_json(file.read_bytes()).root
    except FileNotFoundError:
        return {}
    except ValidationError as e:
        raise ConfigError(
            f"{file} is damaged; delete it and sign in again with `scipion-cloud login`."
        ) from e


def store_credential(server: str, credential: Credential | None) -> None:
    """Keep the credential of a server, or forget it (None). The file is replaced whole."""
    all_of_them = read_credentials()
    if credential is None:
        all_of_them.pop(server, None)
    else:
        all_of_them[server] = credential
    file = credentials_file()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, fresh = tempfile.mkstemp(dir=file.parent, prefix=".credentials-")  # mode 0600
    with os.fdopen(descriptor, "w") as stream:
        json.dump({name: c.model_dump() for name, c in all_of_them.items()}, stream, indent=2)
    Path(fresh).replace(file)


def clean_server(address: str) -> str:
    """`https://host[:port]` of what a person typed; http only where it says so, or on this machine.

    Raises ConfigError if it is no address.
    """
    address = address.strip()
    if "://" not in address:
        host = urlsplit(f"//{address}").hostname
        address = f"{'http' if host in _LOCAL else 'https'}://{address}"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"'{address}' is not the address of a server; it looks like https://scipion.example.org."
        )
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def is_exposed(server: str) -> bool:
    """Whether what is sent to this address could be read on the way: http to another machine."""
    parts = urlsplit(server)
    return parts.scheme == "http" and parts.hostname not in _LOCAL


def choose_server(given: str | None) -> tuple[str, Credential]:
    """The server to talk to: the one given, the variable's, or the only one signed in to.

    Raises ConfigError if that is open, or nobody is signed in there.
    """
    stored = read_credentials()
    given = given or os.environ.get(SERVER_VARIABLE)
    if given:
        server = clean_server(given)
        if server not in stored:
            raise ConfigError(f"You are not signed in at {server}. Run `scipion-cloud login {server}` first.")
    elif len(stored) == 1:
        (server,) = stored
    elif stored:
        names = ", ".join(stored)
        raise ConfigError(f"You are signed in at {names}: say which with --server or {SERVER_VARIABLE}.")
    else:
        raise ConfigError("You are not signed in. Run `scipion-cloud login ADDRESS` first.")
    return server, stored[server]
