"""`scipion-cloud data` on a folder as storage: what it prints, what it refuses, what lies there then."""

import json
import os
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from scipion_cloud.cli import main
from scipion_cloud.cli.data import data
from scipion_cloud.cli.storages import Duration, Moment
from scipion_cloud.deployments import session as sessions
from scipion_cloud.deployments.settings import default_state
from scipion_cloud.storage import open_storage
from scipion_cloud.sync.lease import Lease, acquire

Call = Callable[..., Result]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "apoferritin"
    folder.mkdir()
    return folder


@pytest.fixture
def call(storage: Path) -> Call:
    """Run a command of `data` on the storage."""

    def run(*words: str | Path, url: str = "", text: str = "") -> Result:
        arguments = ["data", words[0], "--storage", url or storage.as_uri(), *words[1:]]
        return CliRunner().invoke(main, [str(a) for a in arguments], input=text)

    return run


@pytest.fixture
def project(call: Call, tmp_path: Path) -> Path:
    """A folder that was saved once."""
    folder = tmp_path / "work"
    (folder / "Runs").mkdir(parents=True)
    (folder / "project.sqlite").write_bytes(b"not a database")
    (folder / "Runs" / "log").write_text("first\n")
    (folder / "Runs" / "latest").symlink_to("log")
    done = call("save", "--from", folder, "--note", "the first")
    assert done.exit_code == 0, done.output
    assert "Saved as generation 1: 2 files" in done.stdout
    return folder


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def held(storage: Path, **options: Any) -> Lease:
    """Somebody else's lock."""
    lease = acquire(
        open_storage(storage.as_uri()), deployment="d9", host="node7", user="Ada", parameters={}, **options
    )
    lease.start()
    return lease


def test_saved_listed_and_restored(call: Call, project: Path, storage: Path, tmp_path: Path) -> None:
    (project / "Runs" / "log").write_text("second\n")
    assert answer(call("save", "--from", project, "--json"))["generation"]["number"] == 2
    assert "Nothing has changed" in call("save", "--from", project).stdout
    rows = answer(call("generations", "--json"))
    assert [(g["number"], g["note"], g["files"]) for g in rows] == [(2, "data save", 2), (1, "the first", 2)]
    table = call("generations").stdout
    assert "the first" in table
    now, before = tmp_path / "now", tmp_path / "before"
    assert "Generation 2" in call("restore", "--to", now).stdout
    assert answer(call("restore", "--to", before, "--generation", "1", "--json"))["number"] == 1
    assert (now / "Runs" / "log").read_text() == "second\n"
    assert (before / "Runs" / "latest").read_text() == "first\n"
    assert (storage / "Runs" / "log").read_text() == "second\n"  # as ordinary files


def test_a_restored_folder_can_be_saved_from(
    call: Call, project: Path, storage: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    call("restore", "--to", other)
    (other / "mask.mrc").write_bytes(b"mask")
    assert call("save", "--from", other).exit_code == 0
    assert (storage / "mask.mrc").read_bytes() == b"mask"
    (project / "notes").write_text("made on top of generation 1")
    refused = call("save", "--from", project)
    assert refused.exit_code == 1
    assert "generation 2" in refused.stderr
    assert not (storage / "notes").exists()
    assert answer(call("lock", "--json"))[0]["released"] is not None


def test_the_status_of_an_empty_storage_and_of_a_project(call: Call, storage: Path) -> None:
    assert "nothing was ever saved here" in call("status").stdout
    assert answer(call("status", "--json"))["latest"] is None


def test_the_status_tells_who_has_it(call: Call, project: Path, storage: Path) -> None:
    lease = held(storage)
    try:
        shown = call("status").stdout
        told = answer(call("status", "--json"))
    finally:
        lease.release()
    assert "Ada on node7" in shown
    assert "2 files" in shown
    assert (told["lock"]["user"], told["lock"]["live"], told["latest"]["number"]) == ("Ada", True, 1)


@pytest.mark.parametrize("command", ["restore", "verify"])
def test_nothing_there(call: Call, tmp_path: Path, command: str) -> None:
    where = ["--to", tmp_path / "to"] if command == "restore" else []
    done = call(command, *where)
    assert done.exit_code == 1
    assert "Nothing was ever saved" in done.stderr
    assert "Nothing was ever saved" in call("generations").stdout
    assert "Nobody has opened" in call("lock").stdout


def test_a_generation_that_is_not_there(call: Call, project: Path, tmp_path: Path) -> None:
    done = call("restore", "--to", tmp_path / "to", "--generation", "7")
    assert done.exit_code == 1
    assert "no generation 7" in done.stderr


def test_a_folder_with_other_files_is_not_restored_into(call: Call, project: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("mine")
    done = call("restore", "--to", thesis)
    assert done.exit_code == 1
    assert "chapter.tex" in done.stderr
    assert [p.name for p in thesis.iterdir()] == ["chapter.tex"]


def test_a_folder_whose_agent_left_work_is_left_alone(call: Call, project: Path, storage: Path) -> None:
    state = default_state(project)
    sessions.opened(state, sessions.load(state, storage.as_uri()), 1)
    for command, option in (("restore", "--to"), ("save", "--from")):
        done = call(command, option, project)
        assert done.exit_code == 1
        assert "start it again" in done.stderr


def test_a_folder_in_use_is_left_alone(call: Call, project: Path) -> None:
    with sessions.locked(default_state(project)):
        done = call("save", "--from", project)
    assert done.exit_code == 1
    assert f"process {os.getpid()}" in done.stderr


def test_a_save_that_removes_everything_asks(call: Call, project: Path, storage: Path) -> None:
    (project / "project.sqlite").unlink()
    (project / "Runs" / "log").unlink()
    refused = call("save", "--from", project)
    assert refused.exit_code == 1
    assert "would delete 2" in refused.stderr
    assert (storage / "Runs" / "log").exists()
    assert call("save", "--from", project, "--allow-deletions").exit_code == 0
    assert not (storage / "Runs" / "log").exists()


def test_a_project_that_is_open_is_not_saved_from_elsewhere(call: Call, project: Path, storage: Path) -> None:
    lease = held(storage)
    try:
        (project / "new").write_text("x")
        done = call("save", "--from", project)
    finally:
        lease.release()
    assert done.exit_code == 1
    assert "Ada on node7" in done.stderr


def test_verify_finds_what_is_damaged(call: Call, project: Path, storage: Path) -> None:
    assert "Generation 1 is whole: 2 files." in call("verify").stdout
    (storage / "Runs" / "log").write_text("forged\n"[:6])
    done = call("verify", "--json")
    assert done.exit_code == 1
    assert [p["path"] for p in json.loads(done.stdout)["problems"]] == ["Runs/log"]
    (storage / "Runs" / "log").unlink()
    assert call("verify", "--no-contents").exit_code == 1


def test_verify_puts_a_file_back_that_was_moved(call: Call, project: Path, storage: Path) -> None:
    (project / "Runs" / "log").write_text("second\n")
    call("save", "--from", project)
    kept = next((storage / ".scipion-cloud" / "kept").iterdir())
    assert kept.read_text() == "first\n"
    (storage / "Runs" / "log").rename(storage / ".scipion-cloud" / "kept" / ("0" * 64))
    assert call("verify").exit_code == 1
    repaired = call("verify", "--repair")
    assert repaired.exit_code == 0, repaired.output
    assert (storage / "Runs" / "log").read_text() == "second\n"


def test_unlock_of_a_project_that_is_not_locked(call: Call, project: Path) -> None:
    assert "not locked" in call("unlock").stdout
    assert answer(call("unlock", "--json"))["unlocked"] is False


def test_unlock_refuses_while_the_holder_lives(call: Call, project: Path, storage: Path) -> None:
    lease = held(storage)
    try:
        done = call("unlock", "--yes")
        assert done.exit_code == 1
        assert "Ada on node7" in done.stderr
        assert call("unlock", "--force", "--yes").exit_code == 2  # a reason is needed
        lease.renew()
    finally:
        lease.release()


def test_unlock_asks_for_the_name_and_is_recorded(call: Call, project: Path, storage: Path) -> None:
    lease = held(storage, ttl=timedelta(seconds=2))
    lease.stop()  # its machine is gone
    reason = ("--force", "--reason", "the node was switched off")
    done = call("unlock", *reason, text="apoferrin\n")
    assert done.exit_code == 1
    assert "left as it is" in done.stderr
    done = call("unlock", *reason, text="apoferritin\n")
    assert done.exit_code == 0, done.output
    assert "unlocked" in done.stdout
    record = call("lock").stdout
    assert "the node was switched off" in record
    assert "Ada on node7" in record
    assert answer(call("status", "--json"))["lock"]["released"] is not None


def test_what_a_predecessor_left_is_taken_up(call: Call, storage: Path, tmp_path: Path) -> None:
    (storage / "project.sqlite").write_bytes(b"old")
    (storage / "Runs").mkdir()
    (storage / "Runs" / "log").write_text("old")
    assert "Scipion project" in call("status").stdout
    (tmp_path / "fresh").mkdir()
    refused = call("save", "--from", tmp_path / "fresh")
    assert refused.exit_code == 1
    assert "import-legacy" in refused.stderr
    made = answer(call("import-legacy", "--json"))
    assert (made["number"], made["files"]) == (1, 2)
    assert call("restore", "--to", tmp_path / "to").exit_code == 0
    assert (tmp_path / "to" / "Runs" / "log").read_text() == "old"
    assert call("import-legacy").exit_code == 1


def test_bench_measures_and_leaves_nothing(call: Call, project: Path, storage: Path) -> None:
    before = sorted(storage.rglob("*"))
    told = answer(call("bench", "--size", "1", "--files", "5", "--json"))
    assert all(value > 0 for value in told["speeds"].values())
    assert told["stage_in_s"] > 0
    assert {"exclusive_create", "symlinks"} <= {f["name"] for f in told["findings"]}
    shown = call("bench", "--size", "1", "--files", "5").stdout
    assert "Round trip" in shown
    assert "2 files" in shown
    assert [p for p in sorted(storage.rglob("*")) if "bench" in p.name] == []
    assert [p for p in before if p.is_file() and not p.exists()] == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "is not the URL of a storage"),
        ("s3+https://user:secret@host/bucket", "Leave the password"),
        ("s3+https://s3.example.org/bucket/p", "Access key is needed"),
        ("sftp://host:port/x", "is not a URL"),
    ],
)
def test_a_url_that_cannot_be_right_is_a_usage_error(call: Call, url: str, said: str) -> None:
    done = call("status", url=url)
    assert done.exit_code == 2
    assert "--storage" in done.stderr
    assert said in " ".join(done.stderr.split())


def test_credentials_that_others_can_read_are_refused(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "s3.toml"
    file.write_text('access_key = "a"\nsecret_key = "b"\n')
    file.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IROTH)
    done = call("status", "--credentials", file, url="s3+https://s3.example.org/bucket/p")
    assert done.exit_code == 1
    assert "chmod 600" in done.stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("120s", 120), ("5m", 300), ("1.5h", 5400), ("14d", 1209600), ("7", 7)]
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "s", "-5s", "5 weeks", "1e9d", "1" * 30 + "d", "nan"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


@pytest.mark.parametrize("text", ["tomorrow", "2026-11-20T18:00:00", "18:00"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Moment().convert(text, None, None)


def test_a_moment_is_kept_in_utc() -> None:
    moment = Moment().convert("2026-11-20T18:00:00+02:00", None, None)
    assert moment.isoformat() == "2026-11-20T16:00:00+00:00"


@pytest.mark.parametrize("name", [*data.commands])
def test_every_command_has_help_that_fits(name: str) -> None:
    done = CliRunner().invoke(main, ["data", name, "--help"])
    assert done.exit_code == 0
    assert "--storage URL" in done.output
    assert all(len(line) <= 80 for line in done.output.splitlines())
