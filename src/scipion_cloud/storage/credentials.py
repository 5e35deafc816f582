"""Credentials given to commands: in a private file or in variables, never on a command line."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scipion_cloud.errors import ConfigError, InvalidInput
from scipion_cloud.storage.kinds import KINDS, StorageKind
from scipion_cloud.storage.sealing import Sealer

STORAGE = "SCIPION_CLOUD_STORAGE_"
SOURCE = "SCIPION_CLOUD_SOURCE_"


def read_credentials(
    kind: StorageKind,
    *,
    environ: Mapping[str, str],
    file: Path | None = None,
    sealer: Sealer | None = None,
    prefix: str = STORAGE,
) -> dict[str, str]:
    """The credentials of one kind of storage, by name; those in the file go before those in variables.

    The file is TOML or JSON, names and texts, or with `sealer` what it sealed. The variables are
    `<prefix><NAME>`, as SCIPION_CLOUD_STORAGE_SECRET_KEY; empty ones do not count, nor do those of other
    kinds of storage. Raises ConfigError for a file that others may read or that cannot be read, InvalidInput
    for names that this kind does not know.
    """
    known = {c.name for c in kind.credentials}
    theirs = {c.name for k in KINDS for c in k.credentials}
    found: dict[str, str] = {}
    for variable, value in environ.items():
        name = variable.removeprefix(prefix).lower()
        if not variable.startswith(prefix) or not value:
            continue
        if name in known:
            found[name] = value
        elif name not in theirs:
            raise InvalidInput(f"There is no credential {variable}. {_takes(kind, prefix)}")
    given = _read(file, sealer) if file else {}
    if unknown := sorted(given.keys() - known):
        raise InvalidInput(f"{file} gives {', '.join(unknown)}. {_takes(kind)}")
    return {**found, **{name: value for name, value in given.items() if value}}


def _takes(kind: StorageKind, prefix: str = "") -> str:
    names = ", ".join(prefix + (c.name.upper() if prefix else c.name) for c in kind.credentials)
    return f"{kind.label} takes {names}." if names else f"{kind.label} takes no credentials."


def _read(file: Path, sealer: Sealer | None) -> dict[str, str]:
    try:
        mode = file.stat().st_mode
        if mode & 0o077:
            raise ConfigError(
                f"Others can read the credentials in {file} (mode {mode & 0o777:o}). Run: chmod 600 {file}"
            )
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as e:
        said = e.strerror if isinstance(e, OSError) else "it is not text"
        raise ConfigError(f"The credentials in {file} cannot be read: {said}.") from e
    if sealer is not None:
        return sealer.open(text)
    values = _parse(file, text)
    if wrong := [name for name, value in values.items() if not isinstance(value, str)]:
        raise ConfigError(f"{file}: {', '.join(wrong)} has to be text, in quotes.")
    return values


def _parse(file: Path, text: str) -> dict[str, Any]:
    # the parsers' own messages would quote what is in the file
    try:
        values = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except json.JSONDecodeError as e:
        raise ConfigError(f"{file} is not valid JSON in line {e.lineno}.") from None
    except tomllib.TOMLDecodeError:
        raise ConfigError(
            f"{file} is not valid TOML: it takes lines as access_key = \"text\", several lines as '''text'''."
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file} has to hold names and texts.")
    return values
