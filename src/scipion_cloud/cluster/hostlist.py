"""Slurm's short form of many names: `n[1-3,7],head` means n1, n2, n3, n7, head."""

import re
from collections.abc import Iterator

from scipion_cloud.errors import InvalidInput

_WORD = re.compile(r"([^\[\],]*)(?:\[([\d,-]+)\])?([^\[\],]*)(?:,|$)")


def expand(text: str) -> tuple[str, ...]:
    """All names in order; zeros before numbers are kept. Raises InvalidInput for what is no such list."""
    names: list[str] = []
    at = 0
    while at < len(text):
        word = _WORD.match(text, at)
        if word is None or word.end() == at:
            raise InvalidInput(f"{text!r} is no list of nodes; write it as n[1-3,7],head.")
        before, numbers, after = word.groups()
        names += [f"{before}{n}{after}" for n in _numbers(numbers)] if numbers else [before + after]
        at = word.end()
    return tuple(name for name in names if name)


def _numbers(text: str) -> Iterator[str]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first or (last and int(last) < int(first)):
            raise InvalidInput(f"{part!r} is no range of numbers.")
        for number in range(int(first), int(last or first) + 1):
            yield str(number).zfill(len(first))
