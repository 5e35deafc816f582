"""Writes the reference of `sites.toml` from its model:

python docs/sites.py > docs/reference/sites.md
"""

import json
from typing import Any

from scipion_cloud.sites.model import Elastic, Flavour, Part, Site

_HEAD = """# sites.toml

<!-- Made by docs/sites.py from src/scipion_cloud/sites/model.py: change it there. -->

`sites.toml` in the home folder names the sites where jobs can run: one table each, called like the site.
Without the file there is one site, this machine. Unknown keys are refused, and every message names the site
and the key at fault. `scipion-cloud site example` prints an annotated file, and
[Add a site](../how-to/add-a-site.md) tells how to go about it. The key `currency` before the first table is
the unit of all prices, `"€"` if unset.

## A site

"""
_FLAVOUR = """
## A flavour

Each is a table `[[NAME.flavours]]`. The broker takes the cheapest on which a job fits; a job that takes a
part of a node pays for that part.

"""
_ELASTIC = """
## Elastic nodes

A table `[NAME.elastic]`, for a site with Slurm and at least one flavour.

"""
_TABLE = "| key | type | default | meaning |\n| --- | --- | --- | --- |\n"
_TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "array": "list of texts",
    "object": "table of texts",
}
_LIMITS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "maxLength": "of {} characters at most",
}
_PARTS = {"flavours": "list of tables", "elastic": "table"}


def reference() -> str:
    """The page in Markdown."""
    parts = ((_HEAD, Site, ("name",)), (_FLAVOUR, Flavour, ()), (_ELASTIC, Elastic, ()))
    return "".join(head + _TABLE + _rows(model, without) for head, model, without in parts)


def _rows(model: type[Part], without: tuple[str, ...]) -> str:
    schema = model.model_json_schema()
    required = schema.get("required", ())
    return "".join(
        _row(name, facts, schema.get("$defs", {}), name in required)
        for name, facts in schema["properties"].items()
        if name not in without
    )


def _row(name: str, facts: dict[str, Any], defs: dict[str, Any], required: bool) -> str:
    kinds = [k for k in (facts, *facts.get("anyOf", [])) if k.get("type", "null") != "null" or "$ref" in k]
    kind = kinds[0]
    limits = [text.format(kind[key]) for key, text in _LIMITS.items() if key in kind]
    default = facts.get("default")
    shown = "needed" if required else "" if default in (None, "", [], {}) else f"`{json.dumps(default)}`"
    return (
        f"| `{name}` | {' '.join([_type(name, kind, defs), *limits])} | {shown} | {facts['description']} |\n"
    )


def _type(name: str, kind: dict[str, Any], defs: dict[str, Any]) -> str:
    if name in _PARTS:
        return _PARTS[name]
    if "$ref" in kind:
        values = defs[kind["$ref"].rpartition("/")[2]]["enum"]
        return " or ".join(f"`{value}`" for value in values)
    return "path" if kind.get("format") == "path" else _TYPES[kind["type"]]


if __name__ == "__main__":
    print(reference(), end="")
