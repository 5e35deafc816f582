"""`scipion-cloud agent` as a person uses it in a terminal."""

import json
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from agent_site import Site, ends_well, newest, works
from click.testing import CliRunner, Result

from scipion_cloud.cli import main
from scipion_cloud.deployments.settings import default_state
from scipion_cloud.deployments.states import Exit

PROGRAM = [sys.executable, "-m", "scipion_cloud.cli", "agent"]


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["agent", *map(str, words)])


def test_a_project_is_run_and_closed_from_the_terminal(project: Site) -> None:
    work = project.folder / "work"
    command = [
        *PROGRAM,
        "run",
        "--storage",
        project.url,
        "--work",
        str(work),
        "--every",
        "1h",
        "--user",
        "Ada",
    ]
    state = default_state(work)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as agent:
        deadline = time.monotonic() + 120
        while "ready" not in call("status", "--state", state).output:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (work / "result.star").write_text("x")
        assert call("save", "--state", state, "--wait").output == "Saved as generation 2.\n"
        agent.send_signal(signal.SIGINT)
        said, _ = agent.communicate(timeout=120)
    assert agent.returncode == Exit.RELEASED, said
    assert said.splitlines()[-1].endswith("released: All is saved, and the project is closed.")
    assert newest(project) == 2
    told = json.loads(call("status", "--state", state, "--json").output)
    assert (told["phase"], told["exit_code"], told["generation"]) == ("released", 0, 2)


def test_orders_from_the_terminal(project: Site) -> None:
    agent = project.open()
    works(agent, project)
    state = agent.state
    assert call("save", "--state", state).exit_code == 0
    agent.wait_for(lambda s: s.generation == 2)
    assert call("revert", "--state", state, "1", "--wait").output == "Saved as generation 3.\n"
    soon = datetime.now(UTC) + timedelta(minutes=10)
    assert "closed at" in call("deadline", "--state", state, soon.isoformat()).output
    shown = call("status", "--state", state).output
    assert "Careful" in shown
    assert "Generation" in shown
    assert "never" not in call("deadline", "--state", state).output
    assert agent.status().deadline is None
    refused = call("confirm", "--state", state)
    assert refused.exit_code == 1
    assert "Nothing waits" in refused.output
    assert call("close", "--state", state).exit_code == 0
    ends_well(agent, project)
    followed = call("status", "--state", state, "--follow")
    assert "released" in followed.output
    late = call("save", "--state", state)
    assert late.exit_code == 1
    assert "No agent answers" in late.output


def test_the_page_is_shown_until_ctrl_c(project: Site) -> None:
    agent = project.open()
    works(agent, project)
    command = [*PROGRAM, "page", "--state", str(agent.state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as page:
        assert page.stdout is not None
        found = re.match(r"http://127\.0\.0\.1:\d+/\S{20,}/\n", page.stdout.readline())
        assert found
        assert httpx.get(f"{found[0].strip()}status").json()["phase"] == "ready"
        page.send_signal(signal.SIGINT)
        assert page.wait(120) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--every", "0s"], "--every"),
        (["--deadline", "2026-11-20T18:00:00"], "time zone"),
        (["--max-deleted", "2"], "--max-deleted"),
        (["--storage", "ftp://x"], "--storage"),
        (["--source", "ftp://x"], "--source"),
        (["--generation", "0"], "--generation"),
    ],
)
def test_options_that_cannot_be_right(site: Site, words: list[str], said: str) -> None:
    usual = ["run", "--storage", site.url, "--work", site.folder / "work"]
    done = call(*usual, *words)
    assert done.exit_code == Exit.USAGE
    assert said in done.output
    assert not default_state(site.folder / "work").exists()


def test_nothing_is_known_about_an_agent_that_never_was(site: Site) -> None:
    done = call("status", "--state", site.folder / "nowhere")
    assert done.exit_code == 1
    assert "Nothing is known" in done.output


@pytest.mark.parametrize(
    "name", ["run", "status", "save", "close", "confirm", "revert", "deadline", "page", "schema"]
)
def test_every_command_has_help_that_fits(name: str) -> None:
    done = call(name, "--help")
    assert done.exit_code == 0
    assert all(len(line) <= 80 for line in done.output.splitlines())
