"""Reading `<home>/sites.toml`: one table a site, named as the site."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scipion_cloud.config import Config
from scipion_cloud.errors import ConfigError
from scipion_cloud.model import AUTOMATIC, HERE
from scipion_cloud.sites.model import Elastic, Flavour, Part, Site, SiteKind, Sites

FILE = "sites.toml"
_TAKEN = (AUTOMATIC, HERE, "local", "home")  # for all but the home site


def read_sites(config: Config) -> Sites:
    """All sites of this installation, read afresh; without a file only the home site.

    Raises ConfigError that names the site and the key at fault, and what is expected there.
    """
    file = config.home / FILE
    try:
        text = file.read_text()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file} cannot be read ({e}). Mend its permissions, or move it away.") from e
    return parse_sites(text, file, config.home)


def example() -> str:
    """An annotated `sites.toml`."""
    return files("scipion_cloud.sites").joinpath("example.toml").read_text()


def parse_sites(text: str, file: Path, home: Path) -> Sites:
    """Sites from the text of a `sites.toml`; its relative paths are below `home`. Raises ConfigError."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        if twice := re.search(r"Cannot declare \('([^']*)',\) twice (.*)", str(e)):
            raise ConfigError(
                f"{file}: two sites are called {twice[1]!r} {twice[2]}. Give each its own name."
            ) from e
        raise ConfigError(f"{file} is not valid TOML: {e}. Correct it or move it away.") from e
    currency = tables.pop("currency", "€")
    if not isinstance(currency, str) or not currency.isprintable():
        raise ConfigError(f"{file}: currency: write a short text, as '€'.")
    sites = [_site(name, table, file, home) for name, table in tables.items()]
    homes = [site for site in sites if site.is_home]
    if len(homes) > 1:
        raise ConfigError(
            f"{file}: {' and '.join(s.name for s in homes)} are of kind 'home'. There is one home: where "
            "this service runs."
        )
    labels = [site.label for site in sites]
    if twice_told := next((label for label in labels if labels.count(label) > 1), ""):
        raise ConfigError(f"{file}: two sites have the title {twice_told!r}. Give each its own.")
    for site in sites:
        if site.name == AUTOMATIC or (site.name in _TAKEN and not site.is_home):
            raise ConfigError(
                f"{file}: {site.name}: this name is taken, for it has a meaning where people choose a site. "
                "Call the site otherwise."
            )
    home_site = homes[0] if homes else Site(name=HERE, title="This machine", kind=SiteKind.HOME)
    return Sites(home=home_site, away=tuple(s for s in sites if not s.is_home), currency=currency)


def _site(name: str, table: Any, file: Path, home: Path) -> Site:
    if not isinstance(table, dict):
        raise ConfigError(
            f"{file}: {name}: unknown key. A site is a table, [{name}], with its keys below; "
            "`scipion-cloud site example` prints one."
        )
    if "name" in table:
        raise ConfigError(f"{file}: [{name}] name: a site is called like its table; take this key out.")
    try:
        site = Site(name=name, **table)
    except ValidationError as e:
        raise ConfigError(f"{file}: {'; '.join(_fault(name, f, table) for f in e.errors())}.") from e
    paths = {
        key: home / path
        for key in ("key_file", "known_hosts_file")
        if (path := getattr(site, key)) is not None
    }
    return site.model_copy(update=paths)


def _fault(name: str, fault: Any, table: dict[str, Any]) -> str:
    """One fault in words: which site, which key, what is expected."""
    place = ".".join(_place(fault["loc"], table))
    message = fault["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    if fault["type"] == "extra_forbidden":
        message = f"unknown key; known are {', '.join(_known(fault['loc']))}"
    elif fault["type"] == "missing":
        message = "this key is missing"
    elif not fault["msg"].startswith("Value error") and not isinstance(fault["input"], dict | list):
        message += f", not {fault['input']!r}"
    return f"[{name}] {f'{place}: ' if place else ''}{message}"


def _place(loc: tuple[Any, ...], table: Any) -> list[str]:
    """The keys that lead to a fault; an element of a list is called by its name where it has one."""
    words: list[str] = []
    for part in loc:
        try:
            table = table[part]
        except (KeyError, IndexError, TypeError):
            table = None
        called = table.get("name") if isinstance(table, dict) else None
        words.append(str(called or part + 1) if isinstance(part, int) else str(part))
    return words


def _known(loc: tuple[Any, ...]) -> list[str]:
    """The keys that there are where one was not known."""

    parts: dict[str, type[Part]] = {"flavours": Flavour, "elastic": Elastic}
    model = parts.get(str(loc[0]), Site) if len(loc) > 1 else Site
    return [key for key in model.model_fields if model is not Site or key != "name"]
