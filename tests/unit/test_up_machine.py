"""The pieces of the set-up: steps, packages, folders, the lock, the port."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from scipion_cloud.cli.progress import Progress, seconds
from scipion_cloud.config import Config
from scipion_cloud.errors import SetupError
from scipion_cloud.provision import apt, npm
from scipion_cloud.provision import home as homes
from scipion_cloud.provision.ports import listen
from scipion_cloud.provision.process import stream
from scipion_cloud.provision.steps import Stamp, Step, digest_of


def test_a_stamp_holds_for_its_inputs_only(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("one")
    stamp = Stamp(tmp_path / "stamp", digest_of([lock, "text"]))
    assert not stamp.matches()
    stamp.write()
    assert stamp.matches()
    lock.write_text("two")
    assert not Stamp(stamp.file, digest_of([lock, "text"])).matches()
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"])
    assert digest_of([tmp_path / "none"]) == digest_of([tmp_path / "nothing"])


def test_stream_reports_each_line_and_returns_the_last(tmp_path: Path) -> None:
    lines: list[str] = []
    program = "import os; print(os.environ['WORD']); print(os.getcwd()); print()"
    last = stream(
        [sys.executable, "-c", program], lines.append, what="Work", cwd=tmp_path, env={"WORD": "Å"}, tail=1
    )
    assert lines == ["Å", str(tmp_path)]
    assert last == str(tmp_path)


def test_a_program_that_fails_is_an_error_with_its_last_lines() -> None:
    program = "import sys; print('\\n'.join(map(str, range(100)))); sys.exit(7)"
    with pytest.raises(SetupError, match=r"Work failed: `.*` ended with 7:\n88\n[\s\S]*99$"):
        stream([sys.executable, "-c", program], lambda _: None, what="Work")
    with pytest.raises(SetupError, match="Work: /nonexistent could not be started"):
        stream(["/nonexistent"], lambda _: None, what="Work")


def test_an_interruption_ends_the_program() -> None:
    pids: list[int] = []

    def report(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        stream([sys.executable, "-c", program], report, what="Work")
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_dpkg_knows_what_is_missing() -> None:
    known = apt.Package("dpkg", "the package manager itself")
    unknown = apt.Package("scipion-cloud-no-such-package", "a test")
    assert apt.missing([known]) == []
    assert apt.missing([unknown, known]) == [unknown.name]


def test_each_package_is_listed_once_with_its_reason() -> None:
    names = [package.name for package in apt.RUNTIME + apt.TESTS]
    assert len(names) == len(set(names))
    assert all(package.why for package in apt.RUNTIME + apt.TESTS)


def test_the_browsers_packages_are_locked_by_digest_and_tied_to_no_registry() -> None:
    lock = json.loads((npm.FOLDER / "package-lock.json").read_text())
    wanted = json.loads((npm.FOLDER / "package.json").read_text())["dependencies"]
    packages = {path: entry for path, entry in lock["packages"].items() if path}
    assert all(f"node_modules/{name}" in packages for name in wanted)
    assert all("integrity" in entry and "resolved" not in entry for entry in packages.values())


def test_the_folders_of_a_home_are_private(config: Config) -> None:
    step = homes.step(config.model_copy(update={"software": config.home / "software"}))
    config.home.chmod(0o755)
    assert not step.done()
    step.work(lambda _: None)
    assert step.done()
    assert {folder.stat().st_mode & 0o777 for folder in homes.folders(config)} == {0o700}


def test_a_home_that_cannot_be_made_is_said_plainly(config: Config) -> None:
    (config.home / "projects").write_text("a file in the way")
    with pytest.raises(SetupError, match="SCIPION_CLOUD_HOME"):
        homes.step(config).work(lambda _: None)


def test_one_up_per_home_and_a_killed_one_lets_go(config: Config) -> None:
    program = (
        "from scipion_cloud.config import read_config; from scipion_cloud.provision.home import locked\n"
    )
    program += "with locked(read_config()): print('held', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(SetupError, match=rf"up on .*process {holder.pid}, http.*Stop it"),
            homes.locked(config),
        ):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with homes.locked(config):
        pass
    with homes.locked(config):
        pass


def test_a_taken_port_is_named_with_its_holder_and_a_way_out(free_port: int) -> None:
    with listen("127.0.0.1", free_port) as held:
        message = rf"Port {free_port} is taken by .+ \(process {os.getpid()}\).* --port {free_port + 1}"
        with pytest.raises(SetupError, match=message):
            listen("127.0.0.1", free_port)
        assert held.getsockname() == ("127.0.0.1", free_port)
    listen("127.0.0.1", free_port).close()  # at once, in spite of connections that linger


def test_an_address_of_another_machine_is_refused(free_port: int) -> None:
    with pytest.raises(SetupError, match=r"no address of this machine.*--host 127\.0\.0\.1"):
        listen("192.0.2.1", free_port)


def test_ipv6_can_be_listened_on(free_port: int) -> None:
    with listen("::1", free_port) as listener:
        assert listener.family is socket.AF_INET6


def progress() -> tuple[Progress, io.StringIO]:
    text = io.StringIO()
    return Progress(Console(file=text, width=100, highlight=False)), text


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    shown, text = progress()
    shown.run(Step("Debian packages", lambda: True, lambda _: pytest.fail("it was done")))
    shown.run(Step("Browser packages", lambda: False, lambda report: report("[red]secret markup[/red]")))
    lines = text.getvalue().splitlines()
    assert lines[0].split() == ["✓", "Debian", "packages", "0.0", "s", "ready"]
    assert lines[1] == "… Browser packages"
    assert lines[2].split() == ["✓", "Browser", "packages", "0.0", "s"]


def test_progress_marks_the_step_that_failed() -> None:
    shown, text = progress()

    def work(_: object) -> None:
        raise SetupError("no network")

    with pytest.raises(SetupError, match="no network"):
        shown.run(Step("Browser packages", lambda: False, work))
    assert text.getvalue().splitlines()[-1] == "✗ Browser packages"


def test_progress_lives_on_a_terminal_and_survives_its_end() -> None:
    text = io.StringIO()
    shown = Progress(Console(file=text, width=60, force_terminal=True, _environ={"TERM": "xterm"}))
    with shown.doing("Scipion environment") as report:
        report("Downloading\nmany lines " * 20)
        time.sleep(0.2)
    assert "Downloading" in text.getvalue()
    with shown.status() as status:
        status("● portal")
        shown.mute()
        status("● controller")
        shown.say("to nobody")
    assert "● portal" in text.getvalue()
    assert "to nobody" not in text.getvalue()
    shown.console.file.close()


@pytest.mark.parametrize(
    ("value", "shown"), [(0.04, "0.0 s"), (9.96, "10.0 s"), (12.3, "12 s"), (200, "3 min 20 s")]
)
def test_seconds_for_people(value: float, shown: str) -> None:
    assert seconds(value) == shown
