"""The table of commands. Each is imported only when it is called, so that `job status` answers at once."""

import importlib
from typing import Any

import click

from scipion_cloud import __version__
from scipion_cloud.errors import ScipionCloudError

# name: (where it is, what it does)
COMMANDS = {
    "up": ("scipion_cloud.cli.up:up", "Set up what is missing and start Scipion Cloud."),
    "doctor": ("scipion_cloud.cli.doctor:doctor", "Say what is missing or wrong, and how to mend it."),
    "login": ("scipion_cloud.cli.account:login", "Sign in to a Scipion Cloud from this terminal."),
    "logout": ("scipion_cloud.cli.account:logout", "Forget the sign-in of this terminal."),
    "project": ("scipion_cloud.cli.project:project", "Create, list, show and delete projects."),
    "storage": ("scipion_cloud.cli.storage:storage", "Connect the storages that keep projects."),
    "upload": ("scipion_cloud.cli.upload:upload", "Send files and folders to a project; resumes."),
    "site": ("scipion_cloud.cli.site:site", "The places where jobs can run: list, test, drain."),
    "node": ("scipion_cloud.cli.node:node", "Nodes that come with the work and go when it is done."),
    "run": ("scipion_cloud.cli.run:run", "Start tools, follow them, fetch their results."),
    "desktop": ("scipion_cloud.cli.desktop:desktop", "Open, list and stop desktops."),
    "agent": ("scipion_cloud.cli.agent:agent", "Open a project of a storage, and look after it."),
    "data": ("scipion_cloud.cli.data:data", "A project's generations and lock: restore, save, verify."),
    "example": ("scipion_cloud.cli.example:example", "Make example data."),
    "config": ("scipion_cloud.cli.configuration:config", "Show the configuration and its schema."),
    "job": ("scipion_cloud.cli.job:job", "The batch system, as Scipion's desktop calls it."),
    "manage": ("scipion_cloud.cli.manage:manage", "Django's administration commands, for operators."),
    "check": ("scipion_cloud.cli.quality:check", "Style, types and layers of the source code."),
    "test": ("scipion_cloud.cli.quality:test", "Set up and run all checks and tests."),
    "bench": ("scipion_cloud.cli.quality:bench", "Measure against the bare programs."),
    "soak": ("scipion_cloud.cli.soak:soak", "Kill agents for an hour, and look whether data is lost."),
}


class Failure(click.ClickException):
    """One of our own errors at the edge of the program: its text in red, exit code 1."""

    def show(self, file: Any = None) -> None:
        """Print the message on standard error."""
        click.secho(f"Error: {self.message}", fg="red", err=True, file=file)


class LazyGroup(click.Group):
    """A group of commands that imports the one that is called, and shows our errors without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list in `--help`, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of ours becomes one message."""
        try:
            return super().invoke(ctx)
        except ScipionCloudError as e:
            raise Failure(str(e)) from e


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scipion-cloud")
def main() -> None:
    """Cryo-EM processing with Scipion as a service.

    Start with `scipion-cloud up`; if something is wrong, `scipion-cloud doctor` tells what.
    """
