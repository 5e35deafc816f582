"""The page about what went wrong before names tests that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "what-went-wrong-before.md"


def test_every_test_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert len(named) > 30
    sources = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "src").rglob("testing/**/*.py")]
    there = {name for file in sources for name in re.findall(r"def (test_\w+)", file.read_text())}
    assert not named - there


def test_no_row_is_without_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 17
    assert all("`test_" in row for row in rows)
