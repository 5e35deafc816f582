"""The web tools there are. To add one, write a module like `movie_alignment` and name it in `_TOOLS`."""

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from scipion_cloud.config import Config, get_config
from scipion_cloud.errors import NotFound, SetupError
from scipion_cloud.tools import movie_alignment
from scipion_cloud.tools.tool import Tool

_TOOLS = (movie_alignment.TOOL,)


def forms_file(config: Config) -> Path:
    """Where the forms of Scipion's protocols are kept, read once at installation."""
    return config.scipion_home / "forms.json"


def protocol_classes() -> tuple[str, ...]:
    """The protocols whose forms the tools need."""
    return tuple(dict.fromkeys(f.protocol for tool in _TOOLS for f in tool.fields if f.protocol))


def tools() -> tuple[Tool, ...]:
    """All tools, their fields completed from Scipion's forms. Raises SetupError without a Scipion."""
    file = forms_file(get_config())
    try:
        return _completed(file, file.stat().st_mtime_ns)
    except FileNotFoundError as e:
        raise SetupError("Scipion is not installed. Run `scipion-cloud up`, which installs it.") from e


def tool(tool_id: str) -> Tool:
    """The tool of that name. Raises NotFound."""
    for candidate in tools():
        if candidate.id == tool_id:
            return candidate
    names = ", ".join(candidate.id for candidate in tools())
    raise NotFound(f"There is no tool {tool_id!r}; there are: {names}.")


@lru_cache(maxsize=2)
def _completed(file: Path, _version: int) -> tuple[Tool, ...]:
    forms = json.loads(file.read_text())
    described = {name: {p["name"]: p for p in form["params"]} for name, form in forms.items()}

    def complete(plain: Tool) -> Tool:
        fields = tuple(f.completed(described[f.protocol][f.param]) if f.protocol else f for f in plain.fields)
        return replace(plain, fields=fields)

    return tuple(complete(plain) for plain in _TOOLS)
