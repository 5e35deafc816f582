"""Reading the docs: their pages, code blocks, commands, links and headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(!?)\[(?:[^\]`]|`[^`]*`)*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page (relative), the line of its fence, its language and its text."""

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Link:
    """Where a link or a picture leads."""

    page: Path
    target: str
    picture: bool


@cache
def blocks() -> tuple[Block, ...]:
    """All fenced blocks of all pages, in order."""
    return tuple(block for page in PAGES for block in _blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(str(page.relative_to(ROOT)), line, found["kind"], found["text"])


def prose(page: Path) -> str:
    """What is outside of the fenced blocks."""
    return _BLOCK.sub("", page.read_text())


def inline_code(page: Path) -> list[str]:
    """What stands between single backticks."""
    return _CODE.findall(prose(page))


def links(page: Path) -> list[Link]:
    """Links and pictures of a page."""
    return [Link(page, target, bool(mark)) for mark, target in _LINK.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """The names under which headings can be reached, as common viewers make them."""
    return {
        re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in _HEADING.findall(prose(page))
    }


def command_lines(block: Block) -> list[str]:
    """The commands of a block, each in one line; a backslash continues one."""
    joined = re.sub(r"\\\n\s*", "", block.text)
    return [line for line in joined.splitlines() if line and not line.startswith("#")]
