"""`scipion-cloud doctor`: what is missing or wrong on this machine, and how to mend it."""

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.text import Text

from scipion_cloud.config import read_config
from scipion_cloud.provision.checks import Check, Verdict, examine

MARKS = {Verdict.OK: ("✓", "green"), Verdict.WARNING: ("!", "yellow"), Verdict.MISSING: ("✗", "red")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON list.")
def doctor(as_json: bool) -> None:
    """Say what is missing or wrong, and how to mend it.

    Changes nothing. The exit code is 1 if something is missing.
    """
    checks = examine(read_config())
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        _show(checks)
    if any(check.verdict is Verdict.MISSING for check in checks):
        raise click.exceptions.Exit(1)


def _show(checks: list[Check]) -> None:
    console = Console(highlight=False)
    width = max(len(check.name) for check in checks) + 2
    for check in checks:
        mark, colour = MARKS[check.verdict]
        first, *rest = check.detail.splitlines() or [""]
        console.print(Text.assemble((f"{mark} ", colour), check.name.ljust(width), first), soft_wrap=True)
        for line in rest:
            console.print(Text(" " * (width + 2) + line, "dim"), soft_wrap=True)
        if check.remedy:
            console.print(Text.assemble(" " * (width + 2), ("→ ", colour), check.remedy), soft_wrap=True)
    counts = {verdict: sum(check.verdict is verdict for check in checks) for verdict in Verdict}
    if counts[Verdict.MISSING]:
        console.print(
            Text(f"\n{counts[Verdict.MISSING]} missing, {counts[Verdict.WARNING]} to look at.", "red")
        )
    elif counts[Verdict.WARNING]:
        console.print(Text(f"\nReady, with {counts[Verdict.WARNING]} to look at.", "yellow"))
    else:
        console.print(Text("\nAll is well.", "green"))
