"""A protocol's form as plain data, read from the protocol itself."""

import pyworkflow as pw
import pyworkflow.protocol.params as params
from pyworkflow.object import Boolean, Float, Integer

_TYPES = (
    (params.EnumParam, "enum"),
    (params.BooleanParam, "bool"),
    (params.IntParam, "int"),
    (params.FloatParam, "float"),
    (params.PointerParam, "pointer"),
    (params.PathParam, "path"),
    (params.StringParam, "string"),
)


class UnknownProtocolError(Exception):
    """No installed plugin has a protocol of that name."""


def protocol_class(name: str):
    """The protocol class called `name`. Raises UnknownProtocolError."""
    found = pw.Config.getDomain().getProtocols().get(name)
    if found is None:
        raise UnknownProtocolError(
            f"Scipion knows no protocol {name}. The plugin that brings it is missing or broken."
        )
    return found


def describe_protocol(name: str) -> dict:
    """The form of a protocol: {"class", "label", "help", "params": [...]} in the order of the form.

    Each parameter: {"name", "type", "default", "label", "help", "choices", "condition", "expert", "section"}.
    """
    cls = protocol_class(name)
    protocol = cls()
    described = []
    for section in protocol.iterDefinitionSections():
        for param_name, param in _leaves(section):
            described.append(_describe(protocol, section, param_name, param))
    return {
        "class": name,
        "label": cls.getClassLabel(False),
        "help": cls.getHelpText().strip(),
        "params": described,
    }


def _leaves(group):
    for name, param in group.iterParams():
        if isinstance(param, params.ElementGroup):
            yield from _leaves(param)
        else:
            yield name, param


def _describe(protocol, section, name, param) -> dict:
    kind = next((kind for cls, kind in _TYPES if isinstance(param, cls)), "other")
    return {
        "name": name,
        "type": kind,
        "default": _default(protocol, name, kind),
        "label": param.label.get() or "",
        "help": param.help.get() or "",
        "choices": [str(c).strip() for c in getattr(param, "choices", [])] if kind == "enum" else [],
        "condition": param.condition.get() or "",
        "expert": param.expertLevel.get() > params.LEVEL_NORMAL,
        "section": section.getLabel() or "",
    }


def _default(protocol, name, kind):
    """The value that a fresh protocol has, in the type that it stores."""
    attribute = getattr(protocol, name, None)
    if kind in ("pointer", "other") or attribute is None:
        return None
    value = attribute.get()
    if value is None:
        return None
    for cls, cast in ((Boolean, bool), (Integer, int), (Float, float)):
        if isinstance(attribute, cls):
            return cast(value)
    return str(value)
