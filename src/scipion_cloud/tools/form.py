"""A tool's form: fields from the protocols' own forms with our limits and words; checks the values."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipion_cloud.errors import InvalidInput

Value = str | int | float | bool | None
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0", ""}


@dataclass(frozen=True)
class Field:
    """One parameter. `kind` is float, int, bool, choice, file (a path in the project's data) or text."""

    name: str
    protocol: str  # the protocol class and the parameter of its form that it sets; "" if it sets none
    param: str
    label: str = ""
    kind: str = ""
    default: Value = None
    required: bool = False
    unit: str = ""
    help: str = ""
    choices: tuple[tuple[str, str], ...] = ()  # (value, text)
    low: float = -math.inf
    high: float = math.inf
    explain: str = ""  # what a value within the limits looks like
    advanced: bool = False

    def completed(self, described: Mapping[str, Any]) -> "Field":
        """The field with what it leaves open taken from Scipion's description of the parameter."""
        kind = self.kind or {"enum": "choice", "string": "text", "path": "file"}.get(
            described["type"], described["type"]
        )
        choices = (
            tuple((str(i), text) for i, text in enumerate(described["choices"])) if kind == "choice" else ()
        )
        default = described["default"] if self.default is None and not self.required else self.default
        return replace(
            self,
            kind=kind,
            label=self.label or described["label"],
            help=self.help or described["help"],
            choices=self.choices or choices,
            default=str(default) if kind == "choice" else default,
        )

    def read(self, given: object) -> Value:
        """The value of what was typed or sent as JSON. Raises InvalidInput with words for the person."""
        text = "" if given is None else str(given).strip()
        if self.kind == "bool":
            return self._read_bool(text.lower())
        if not text:
            if self.required:
                raise InvalidInput(f"This is needed. {self.explain}".strip())
            return None if self.kind in ("file", "text") else self.default
        if self.kind in ("float", "int"):
            return self._read_number(text)
        if self.kind == "choice" and text not in dict(self.choices):
            allowed = ", ".join(f"{value} ({name.strip()})" for value, name in self.choices)
            raise InvalidInput(f"Choose one of: {allowed}.")
        return text

    def _read_bool(self, text: str) -> bool:
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise InvalidInput("Answer yes or no.")

    def _read_number(self, text: str) -> int | float:
        try:
            number = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
        except ValueError:
            raise InvalidInput(f"'{text[:40]}' is not a number. {self.explain}".strip()) from None
        if not math.isfinite(number) or not self.low <= number <= self.high:
            raise InvalidInput(
                f"{text[:40]}{' ' + self.unit if self.unit else ''} cannot be right. {self.explain}".strip()
            )
        if self.kind == "float":
            return number
        if number != int(number):
            raise InvalidInput("This must be a whole number.")
        return int(number)

    def schema(self) -> dict[str, Any]:
        """The field in JSON Schema."""
        kind = {"float": "number", "int": "integer", "bool": "boolean"}.get(self.kind, "string")
        limits = {"minimum": self.low, "maximum": self.high}
        return {
            "title": self.label,
            "type": kind,
            "description": " ".join(filter(None, (self.help, self.explain))),
            **({"default": self.default} if self.default is not None else {}),
            **({"enum": [value for value, _ in self.choices]} if self.choices else {}),
            **{name: limit for name, limit in limits.items() if math.isfinite(limit)},
            **({"x-unit": self.unit} if self.unit else {}),
            **({"x-advanced": True} if self.advanced else {}),
        }


def read_all(fields: Sequence[Field], values: Mapping[str, object]) -> dict[str, Value]:
    """A value for every field. Raises InvalidInput with a message for each that is wrong or unknown."""
    known = {field.name: field for field in fields}
    errors = {name: _unknown(name, list(known)) for name in values if name not in known}
    read: dict[str, Value] = {}
    for name, field in known.items():
        try:
            read[name] = field.read(values[name]) if name in values else _absent(field)
        except InvalidInput as e:
            errors[name] = str(e)
    if errors:
        raise InvalidInput(errors=errors)
    return read


def _absent(field: Field) -> Value:
    return field.read(None) if field.required else field.default


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
    return f"There is no parameter {name[:60]!r}; {meant}"
