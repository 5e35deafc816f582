"""`scipion-cloud check`, `test` and `bench`: the quality of a checkout."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

import scipion_cloud
from scipion_cloud.cli.progress import Progress
from scipion_cloud.cli.setup import machine_steps
from scipion_cloud.config import ENV_PREFIX, get_config
from scipion_cloud.errors import InvalidInput, SetupError
from scipion_cloud.provision import apt
from scipion_cloud.provision.process import stream

CHECKS = {
    "Style": ["ruff", "check", "."],
    "Format": ["ruff", "format", "--check", "."],
    "Types": ["mypy"],
    "Layers": ["lint-imports"],
}

FAILED = 1  # exit code of pytest: all ran, some failed
MAY_BE_FLAKY = 5  # tests; more that fail are broken, and no second try shows anything

more = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)


@click.command()
def check() -> None:
    """Style, types and layers of the source code."""
    _check(Progress())


@click.command()
@more
def test(arguments: tuple[str, ...]) -> None:
    """Set up, then run all checks and tests. ARGUMENTS after -- go to pytest."""
    progress = set_up()
    _check(progress)
    processes = str((os.cpu_count() or 1) + 1)  # many of them mostly wait
    # in the order of conftest
    side_by_side = ["-n", processes, "--dist", "loadfile", "--no-loadscope-reorder"]
    shown = ["--durations=20", "--durations-min=1"]
    code = _pytest("--cache-clear", *side_by_side, *shown, *arguments)
    if code == FAILED and 0 < len(failed := _failed()) <= MAY_BE_FLAKY:
        progress.say(f"\nOnce more, alone, those that failed beside the others: {len(failed)}")
        code = _pytest("--last-failed", *arguments)
        if not code:
            progress.say("\nFlaky, as they passed only alone. Whatever they depend on is to be mended:")
            progress.say("\n".join(f"  {name}" for name in failed))
    raise click.exceptions.Exit(code)


def _pytest(*arguments: str) -> int:
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], cwd=checkout(), check=False
    ).returncode


def _failed() -> list[str]:
    """The tests that failed last, from pytest's cache."""
    try:
        return list(json.loads((checkout() / ".pytest_cache" / "v" / "cache" / "lastfailed").read_bytes()))
    except FileNotFoundError:
        return []


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", required=False)
@more
def bench(name: str | None, arguments: tuple[str, ...]) -> None:
    """Set up, then measure against the bare programs.

    All benchmarks, or the one with this NAME, which gets the ARGUMENTS.
    """
    scripts = {script.stem: script for script in sorted((checkout() / "benchmarks").glob("[a-z]*.py"))}
    if name and name not in scripts:
        raise InvalidInput(f"There is no benchmark {name!r}; there are {', '.join(scripts)}.")
    progress = set_up()
    failed = []
    for script in [scripts[name]] if name else scripts.values():
        progress.say(f"\n{script.stem}")
        if subprocess.run([sys.executable, script, *arguments], cwd=checkout(), check=False).returncode:
            failed.append(script.stem)
    if failed:
        raise SetupError(
            f"Benchmarks that did not come to an end: {', '.join(failed)}. Their words stand above."
        )


def checkout() -> Path:
    """The root of the checkout that we run from. Raises SetupError for an installed package."""
    root = Path(scipion_cloud.__file__).parents[2]
    if not (root / "pyproject.toml").exists():
        raise SetupError("This is for a checkout of the source code; an installed package has no tests.")
    return root


def set_up() -> Progress:
    """What the tests need of the machine; they make homes of their own and share the software folder."""
    checkout()
    config = get_config()
    os.environ[f"{ENV_PREFIX}SOFTWARE"] = str(config.software.expanduser().absolute())
    progress = Progress()
    for step in machine_steps(config, apt.RUNTIME + apt.TESTS):
        progress.run(step)
    return progress


def _check(progress: Progress) -> None:
    """All of the static checks, so that one round of mending does. Raises SetupError if any fails."""
    failed = []
    # mypy's plugin for Django reads the settings, and those make a key in their home
    with tempfile.TemporaryDirectory(prefix="scipion-cloud-check-") as home:
        for title, command in CHECKS.items():
            words = [str(Path(sys.executable).with_name(command[0])), *command[1:]]
            try:
                with progress.doing(title) as report:
                    stream(
                        words, report, what=title, cwd=checkout(), env={f"{ENV_PREFIX}HOME": home}, tail=60
                    )
            except SetupError as e:
                failed.append(title)
                progress.say(str(e))
    if failed:
        raise SetupError(
            f"Not as it should be: {', '.join(failed).lower()}. Mend what stands above, then try again."
        )
