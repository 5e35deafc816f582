"""What a web tool is: a form, and the chain of Scipion protocols that it becomes."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
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
    main: str  # the step that computes, which may be sent to another site
    packages: tuple[str, ...]  # Scipion plugins that the main step needs

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


@dataclass(frozen=True)
class Queue:
    """Where the main step goes when it does not run here: a queue of Scipion's hosts.conf."""

    name: str
    params: Mapping[str, str]  # as the desktop's queue dialog sets them
    key: str  # submitted with it, once


@dataclass(frozen=True)
class Lanes:
    """Jobs that take movies off the main step's hands; see `scipion_cloud_em.lanes`."""

    count: int
    cpus: int  # of each
    memory_gb: float  # GiB, of each
    key: str  # submitted with it and their number, once
    name: str  # for people


def build_request(
    tool: Tool,
    key: str,
    project: Path,
    parameters: Mapping[str, Value],
    inputs: LinkedInputs,
    comment: str = "",
    queue: Queue | None = None,
    lanes: Lanes | None = None,
) -> dict[str, Any]:
    """The request that `scipion_cloud_em.chain` carries out.

    With a `queue` the main step is sent there, with `lanes` other jobs take a part of it.
    """
    steps = tool.steps(parameters, inputs)
    main = next(step for step in steps if step["name"] == tool.main)
    if queue:
        main["queue"] = {"name": queue.name, "params": dict(queue.params), "key": queue.key}
    if lanes:
        main["lanes"] = asdict(lanes)
    return {"key": key, "project": str(project), "comment": comment, "steps": steps}
