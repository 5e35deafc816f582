"""The command line as a whole: quick to start, clear when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click import Command
from click.testing import CliRunner

from scipion_cloud.cli import main
from scipion_cloud.cli.main import COMMANDS
from scipion_cloud.config import Config

PROGRAM = Path(sys.executable).with_name("scipion-cloud")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists_and_has_help(name: str) -> None:
    command = main.get_command(None, name)  # type: ignore[arg-type] # the context is not looked at
    assert isinstance(command, Command)
    if name != "manage":  # Django's own help takes over there
        done = CliRunner().invoke(main, [name, "--help"])
        assert done.exit_code == 0, done.output
        assert done.output.startswith("Usage:")


def test_help_imports_no_command() -> None:
    program = "import sys; from scipion_cloud.cli import main; main(['--help'], standalone_mode=False);"
    program += "print([m for m in ('django', 'rich', 'httpx', 'numpy', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"  # so it is quick
    listing = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(f"  {name} " in listing for name in COMMANDS)


def test_an_error_of_ours_is_one_message_without_traceback(home: Path) -> None:
    (home / "config.toml").write_text("port = 8080\ncolour = 'red'\n")
    done = subprocess.run([PROGRAM, "config", "show"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert "colour" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("port = [", "not valid TOML"),
        ("port = 0", "port"),
        ("cpus = 'many'", "cpus"),
        ("host = 3", "host"),
        ("home = '/elsewhere'", "SCIPION_CLOUD_HOME"),
    ],
)
def test_what_is_wrong_in_the_configuration_is_named(home: Path, content: str, said: str) -> None:
    (home / "config.toml").write_text(content)
    done = CliRunner().invoke(main, ["config", "show"])
    assert done.exit_code == 1
    assert said in done.stderr
    assert str(home / "config.toml") in done.stderr


def test_an_unknown_command_is_a_usage_error() -> None:
    done = CliRunner().invoke(main, ["start"])
    assert done.exit_code == 2
    assert "No such command 'start'" in done.stderr


def test_config_show_is_a_configuration_file_without_the_password(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://cloud:s3cret@db.example.org:5432/cloud"
    (home / "config.toml").write_text(f'port = 9000\ndatabase = "{url}"\n')
    monkeypatch.setenv("SCIPION_CLOUD_CPUS", "3")
    shown = CliRunner().invoke(main, ["config", "show"]).stdout
    assert "s3cret" not in shown
    assert "postgresql://cloud:***@db.example.org:5432/cloud" in shown
    values = json.loads(CliRunner().invoke(main, ["config", "show", "--json"]).stdout)
    assert (values["port"], values["cpus"]) == (9000, 3)
    assert "s3cret" not in values["database"]
    (home / "config.toml").write_text(shown)  # what is shown can be read again
    again = json.loads(CliRunner().invoke(main, ["config", "show", "--json"]).stdout)
    assert again == values


def test_config_schema_tells_of_every_key() -> None:
    schema = json.loads(CliRunner().invoke(main, ["config", "schema"]).stdout)
    assert set(schema["properties"]) == set(Config.model_fields)
    assert all("description" in value for value in schema["properties"].values())
    assert schema["additionalProperties"] is False


def test_manage_hands_all_options_to_django() -> None:
    done = subprocess.run([PROGRAM, "manage", "check", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "scipion-cloud manage check" in done.stdout
    assert "--fail-level" in done.stdout
