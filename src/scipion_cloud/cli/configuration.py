"""`scipion-cloud config`: what is configured, and what can be."""

import json
import re

import click

from scipion_cloud.config import ENV_PREFIX, Config, read_config


@click.group()
def config() -> None:
    """Show the configuration and its schema."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def show(as_json: bool) -> None:
    """Print the values in force, as a config.toml. A database password is left out."""
    values = read_config().model_dump(mode="json")
    values["database"] = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", values["database"])
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    click.echo(f"# {values['home']}/config.toml; a variable {ENV_PREFIX}NAME goes before it")
    for name, value in values.items():
        click.echo(f"\n# {Config.model_fields[name].description}")
        line = f"{name} = {'' if value is None else json.dumps(value)}"
        click.echo(f"# {line}" if value is None or name == "home" else line)


@config.command()
def schema() -> None:
    """Print the JSON schema of config.toml."""
    click.echo(json.dumps(Config.model_json_schema(), indent=2))
