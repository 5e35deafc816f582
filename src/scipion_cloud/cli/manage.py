"""`scipion-cloud manage`: Django's administration commands on this home."""

import os

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}, add_help_option=False
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def manage(args: tuple[str, ...]) -> None:
    """Django's administration commands, for operators: createsuperuser, dbshell, dumpdata ..."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scipion_cloud.portal.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(["scipion-cloud manage", *args])
