"""What a web tool is: a form, and the chain of Scipion protocols that it becomes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipion_cloud.errors import InvalidInput
from scipion_cloud.tools.form import Field, Value, read_all
from scipion_cloud.tools.inputs import LinkedInputs


@dataclass(frozen=True)
class Tool:
    """A web tool: a form, and the chain of Scipion protocols that it becomes."""

    id: str
    title: str
    summary: str
    fields: tuple[Field, ...]
    steps: Callable[[Mapping[str, Value], LinkedInputs], list[dict[str, Any]]]
    check: Callable[[Mapping[str, Value]], Mapping[str, str]]  # errors that concern several fields

    def validate(self, values: Mapping[str, object]) -> dict[str, Value]:
        """A value for every parameter from what was typed or sent. Raises InvalidInput, by field."""
        read = read_all(self.fields, values)
        if errors := self.check(read):
            raise InvalidInput(errors=errors)
        return read

    def form(self) -> dict[str, Any]:
        """The parameters as JSON Schema."""
        return {
            "type": "object",
            "additionalProperties": False,
            "required": [field.name for field in self.fields if field.required],
            "properties": {field.name: field.schema() for field in self.fields},
        }


def build_request(
    tool: Tool,
    key: str,
    project: Path,
    parameters: Mapping[str, Value],
    inputs: LinkedInputs,
    comment: str = "",
) -> dict[str, Any]:
    """The request that `scipion_cloud_em.chain` carries out."""
    steps = tool.steps(parameters, inputs)
    return {"key": key, "project": str(project), "comment": comment, "steps": steps}
