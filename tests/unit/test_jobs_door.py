"""The door of a site lets in what it must, by real rsync, and nothing else."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scipion_cloud import __version__
from scipion_cloud.errors import InvalidInput
from scipion_cloud.jobs import bundle, door, wire

LETTERS = "-logDtpre.iLsfxCIvu"


@pytest.fixture
def area(tmp_path: Path) -> Path:
    """An area with a project, and with links that lead out of it."""
    area = tmp_path / "an area"
    (area / "projects" / "p 1").mkdir(parents=True)
    (area / "projects" / "p 1" / "file").write_text("content\n")
    (area / "jobs").mkdir()
    (area / "projects" / "out").symlink_to(tmp_path)
    (area / "projects" / "circle").symlink_to("circle")
    (area / "projects" / "inside").symlink_to("p 1")
    (tmp_path / "secret").write_text("secret\n")
    bundle.write_bundle(area / bundle.NAME)
    return area


def knock(
    area: Path, command: str, message: bytes = b"", *options: str
) -> "subprocess.CompletedProcess[bytes]":
    """What sshd does with a client's command."""
    argv = [sys.executable, "-I", "-S", str(area / bundle.NAME), "door", "--area", str(area), *options]
    env = {"PATH": os.environ["PATH"], "SSH_ORIGINAL_COMMAND": command}
    return subprocess.run(argv, env=env, input=message, capture_output=True, timeout=240)


@pytest.fixture
def shell(area: Path, tmp_path: Path) -> Path:
    """A program in the place of ssh, which knocks at the door."""
    argv = [sys.executable, "-I", "-S", str(area / bundle.NAME), "door", "--area", str(area)]
    path = tmp_path / "shell"
    path.write_text(f'#!/bin/sh\nshift\nexport SSH_ORIGINAL_COMMAND="$*"\nexec {shlex.join(argv)}\n')
    path.chmod(0o755)
    return path


def rsync(shell: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["rsync", "-e", shell, *arguments], capture_output=True, text=True, timeout=240)


def test_about(area: Path) -> None:
    for command in ("about", f"python3 {shlex.quote(str(area / bundle.NAME))} about"):
        assert json.loads(knock(area, command).stdout)["version"] == __version__


def test_serve_is_the_door_s_own(area: Path) -> None:
    """What the client says of area and batch system is not heeded."""
    elsewhere = area.parent / "elsewhere"
    command = f"python3 {shlex.quote(str(area / bundle.NAME))} serve --area {elsewhere} --batch slurm"
    request = wire.line({"id": 1, "call": "about", "args": {}})
    answer = knock(area, command, request, "--batch", "local", "--option", "cpus=7")
    found = json.loads(answer.stdout.splitlines()[-1])["answer"]
    assert (found["area"], found["batch"], found["cpus"]) == (str(area), "local", 7)
    assert not elsewhere.exists()


def test_site_json(area: Path) -> None:
    (area / "site.json").write_text('{"batch": "local", "options": {"cpus": 5}}')
    request = wire.line({"id": 1, "call": "about", "args": {}})
    assert json.loads(knock(area, "serve", request).stdout.splitlines()[-1])["answer"]["cpus"] == 5
    for wrong in ("{", '["local"]', '{"bach": "local"}', '{"batch": "none"}', '{"options": {"cpus": "x"}}'):
        (area / "site.json").write_text(wrong)
        answer = knock(area, "serve", request)
        assert answer.returncode == 2
        assert b"Traceback" not in answer.stderr
        assert answer.stderr


def test_files_there_and_back(area: Path, shell: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    name = 'it\'s a "name" $HOME; * é'
    (here / name).write_text("text\n")
    (here / "link").symlink_to("/etc/passwd")
    to = f"site:{area}/projects/new/it's"
    sent = rsync(
        shell, "-azHAXS", "--mkpath", "--partial-dir=.partial", "--delete", "--info=progress2", f"{here}/", to
    )
    assert sent.returncode == 0, sent.stderr
    assert (area / "projects/new/it's" / name).read_text() == "text\n"
    assert (area / "projects/new/it's/link").readlink() == Path("/etc/passwd")
    back = tmp_path / "back"
    got = rsync(shell, "-a", "--checksum", "--timeout=60", "--exclude=link", "site:projects/new/it's/", back)
    assert got.returncode == 0, got.stderr
    assert [path.name for path in back.iterdir()] == [name]
    assert rsync(shell, "-a", f"site:{area}/projects/inside/file", tmp_path / "f").returncode == 0
    listed = tmp_path / "list"
    listed.write_text("file\n")
    sent = rsync(shell, "-a", "--inplace", f"--files-from={listed}", area / "projects/p 1", f"{to}/2")
    assert sent.returncode == 0, sent.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["-aL"],
        ["-ak"],
        ["-a", "--copy-unsafe-links"],
        ["-a", "-s"],
        ["-a", "--files-from=:list"],
        ["-a", "-M--log-file=/tmp/x"],
        ["-a", "--no-implied-dirs", "-R"],
        ["-a", "-b", "--backup-dir=/tmp"],
    ],
    ids=str,
)
def test_options_that_lead_out(area: Path, shell: Path, tmp_path: Path, options: list[str]) -> None:
    got = rsync(shell, *options, f"site:{area}/projects/", tmp_path / "back")
    assert got.returncode != 0
    assert "This site's door refuses" in got.stderr
    assert not (tmp_path / "back" / "out" / "secret").exists()


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../secret",
        "projects/../../secret",
        "projects/out/secret",
        "projects/out",
        "projects/circle",
        "",
        ".",
        "projects/..",
        bundle.NAME,
        "site.json",
        "jobs",
        "jobs/../jobs/x",
        "projects/out/an area/jobs",
        "--log-file=x",
        "-e",
        "projects/*/../../x",
    ],
)
@pytest.mark.parametrize("way", [["--server"], ["--server", "--sender"]], ids=["into", "out of"])
def test_paths_that_lead_out(area: Path, way: list[str], path: str) -> None:
    with pytest.raises(InvalidInput):
        door.rsync_arguments([*way, LETTERS, ".", path], area)


@pytest.mark.parametrize(
    "path", ["", "..", "projects/../..", "projects/out", "jobs", bundle.NAME, "/../secret"]
)
def test_absolute_paths_that_lead_out(area: Path, path: str) -> None:
    with pytest.raises(InvalidInput):
        door.rsync_arguments(["--server", LETTERS, ".", f"{area}/{path}"], area)


def test_one_bad_path_among_good_ones(area: Path) -> None:
    with pytest.raises(InvalidInput):
        door.rsync_arguments(["--server", "--sender", LETTERS, ".", "projects/p 1", "jobs"], area)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--server"],
        ["--server", "."],
        ["--server", ".", "projects/a", "projects/b"],
        ["--daemon", ".", "projects"],
        ["--server", "--daemon", ".", "projects"],
        ["--server", "--config=x", ".", "projects"],
        ["--server", "-e", "sh", ".", "projects"],
        ["--server", "-esh", ".", "projects"],
        ["--server", "-", ".", "projects"],
        ["--server", "--", ".", "projects"],
        ["--server", "--rsh=sh", ".", "projects"],
        ["--server", "--rsync-path=x", ".", "projects"],
        ["--server", "--log-file=x", ".", "projects"],
        ["--server", "--log-file", "x", ".", "projects"],
        ["--server", "--temp-dir", "/tmp", ".", "projects"],
        ["--server", "--link-dest", "/tmp", ".", "projects"],
        ["--server", "--partial-dir", "/tmp", ".", "projects"],
        ["--server", "--partial-dir", "..", ".", "projects"],
        ["--server", "--partial-dir", ".", "projects"],
        ["--server", "--partial-dir=/tmp", ".", "projects"],
        ["--server", "--log-format=/x", ".", "projects"],
        ["--server", "--remove-source-files=x", ".", "projects"],
        ["--server", LETTERS, "projects", ".", "projects"],
        ["--server", LETTERS, "--sender", ".", "projects"],
        ["--server", "-K" + LETTERS[1:], ".", "projects"],
        ["--server", "-s", ".", "projects"],
        ["--server", "--files-from=-", ".", "projects"],
    ],
    ids=str,
)
def test_arguments_that_no_client_needs(area: Path, words: list[str]) -> None:
    with pytest.raises(InvalidInput):
        door.rsync_arguments(words, area)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "sh",
        "bash -c id",
        "serve; id > MARK",
        "about && touch MARK",
        "about\ntouch MARK",
        "$(touch MARK)",
        "`touch MARK`",
        "rsync --server -e.L . projects; touch MARK",
        "rsync --server $(touch MARK) . projects",
        "/usr/bin/rsync --server -e.L . projects/p",
        "./rsync --server -e.L . projects/p",
        "scp -t projects",
        "/usr/lib/openssh/sftp-server",
        "internal-sftp",
        'python3 -c \'open("MARK", "w")\'',
        f"python3 {bundle.NAME} supervise projects",
        f"python3 {bundle.NAME} door",
        f"{bundle.NAME}",
        "about extra",
        "'unclosed",
        "\0",
        "\udcff",
    ],
)
def test_other_commands(
    area: Path, capfd: pytest.CaptureFixture[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(area)
    assert door.main(["--area", str(area)], command) == 2
    assert "This site's door refuses" in capfd.readouterr().err
    assert not (area / "MARK").exists()
