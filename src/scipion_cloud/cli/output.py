"""How answers are shown: a table for people, JSON for programs."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

_STATE_STYLE = {"finished": "green", "ready": "green", "done": "green", "failed": "red", "running": "cyan"}


def show_json(value: Any) -> None:
    """Print JSON on standard output."""
    click.echo(json.dumps(value, indent=2))


def show_table(columns: Iterable[str], rows: Iterable[Iterable[object]], empty: str) -> None:
    """Print a table, or `empty` if there is nothing to show. Whole values when the output is no terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = ["" if cell is None else str(cell) for cell in row]
        table.add_row(*(Text(cell, _STATE_STYLE.get(cell, "")) for cell in cells))
    if not table.row_count:
        click.echo(empty)
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)
    console.print(table)


def show_facts(facts: dict[str, object]) -> None:
    """Print names and values, one a line; empty values are left out."""
    shown = {name: str(value) for name, value in facts.items() if value not in (None, "")}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name.ljust(width)}  {value}")


def moment(value: str | None) -> str:
    """A time of the API (UTC) as this terminal's own time."""
    return datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M") if value else ""


def time_left(deadline: str) -> str:
    """Hours and minutes until a time of the API."""
    seconds = max(0, int((datetime.fromisoformat(deadline) - datetime.now(UTC)).total_seconds()))
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def size(count: float) -> str:
    """Bytes in decimal units: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
