"""Writes the reference of the configuration from its schema:

python docs/configuration.py > docs/reference/configuration.md
"""

import json
from typing import Any

from scipion_cloud.config import ENV_PREFIX, Config

_HEAD = f"""# Configuration

<!-- Made by docs/configuration.py from src/scipion_cloud/config.py: change it there. -->

A key is read from `config.toml` in the home folder, or from a variable `{ENV_PREFIX}` and its name in
capitals, which goes before the file. Unknown keys are refused. `scipion-cloud config show` prints what is in
force, and `scipion-cloud config schema` prints this table for programs, as JSON schema.

| key | type | default | meaning |
| --- | --- | --- | --- |
"""
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "array": "list of folders"}
_LIMITS = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}"}


def reference() -> str:
    """The page in Markdown."""
    schema = Config.model_json_schema()["properties"]
    return _HEAD + "".join(_row(name, facts) for name, facts in schema.items())


def _row(name: str, facts: dict[str, Any]) -> str:
    kinds = [facts, *facts.get("anyOf", [])]
    (kind,) = (_TYPES[k["type"]] for k in kinds if k.get("type", "null") != "null")
    limits = [text.format(k[key]) for k in kinds for key, text in _LIMITS.items() if key in k]
    default = facts.get("default")
    shown = "" if default is None else f"`{json.dumps(default)}`"
    return f"| `{name}` | {' '.join([kind, *limits])} | {shown} | {facts['description']} |\n"


if __name__ == "__main__":
    print(reference(), end="")
