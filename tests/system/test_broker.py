"""Jobs at a site behind a real sshd and its door: there and back, cancelled, and with everything killed."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from broker_site import Run, parcel, running

from scipion_cloud.broker import trip
from scipion_cloud.broker.places import home_id
from scipion_cloud.broker.transfer import PARTIAL, Transfer
from scipion_cloud.config import Config
from scipion_cloud.errors import InvalidInput, TransferError
from scipion_cloud.jobs import JobState
from scipion_cloud.testing.offload import Far, far_site
from scipion_cloud.testing.offload.loop import offload
from scipion_cloud.tools.movies.results import PROTOCOL, output_names


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    folder = tmp_path_factory.mktemp("far")
    with far_site(folder, Config(home=folder / "home")) as far:
        yield far


@pytest.fixture
def run(far: Far) -> Iterator[Run]:
    with running(far.config) as run:
        yield run


def test_results_and_output_come_home_and_the_folder_there_goes(run: Run, far: Far, tmp_path: Path) -> None:
    root = tmp_path / "it's a job"
    (root / "out").mkdir(parents=True)
    (root / "out" / "before").write_text("kept")
    script = (
        "echo said; echo told >&2; ls out; mkdir out/new out/empty; echo a > out/new/a; "
        'ln -s "$PWD/out/new/a" out/l'
    )
    job = run.backend.submit(parcel(root, script), "results")
    status = run.end(job)
    assert (status.state, status.exit_code) == (JobState.DONE, 0)
    assert (root / "out" / "l").read_text() == "a\n"
    assert (root / "out" / "l").readlink() == Path("new/a")  # not the path of there
    assert (root / "out" / "empty").is_dir()
    assert (root / "out" / "before").read_text() == "kept"
    assert not list(root.glob(".scipion-cloud-*"))
    logs = run.backend.logs(job)
    assert ("said" in logs.stdout, "before" in logs.stdout, logs.stderr) == (True, True, "told\n")
    there = far.area / "projects"
    folder = next(p for p in there.iterdir() if p.name.startswith(home_id(far.config)))
    deadline = time.monotonic() + 120
    while (folder / "out").exists():
        assert time.monotonic() < deadline, "the run's folder stays at the site"
        time.sleep(0.2)
    assert (folder / "run.sh").exists()  # inputs stay for later


def test_a_job_that_fails_there_fails_here_with_its_results(run: Run, tmp_path: Path) -> None:
    job = run.backend.submit(parcel(tmp_path / "p", "mkdir -p out; echo half > out/half; exit 3"), "fails")
    status = run.end(job)
    assert (status.state, status.exit_code) == (JobState.FAILED, 3)
    assert status.reason == "at Far away: ended with exit code 3; its log tells more"
    assert (tmp_path / "p" / "out" / "half").read_text() == "half\n"


def test_what_leads_out_or_is_missing_is_told(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "p"
    root.mkdir()
    (root / "secret").symlink_to("/etc/hostname")
    first = run.backend.submit(parcel(root, "true", "secret"), "out")
    second = run.backend.submit(parcel(tmp_path / "q", "true", "nothing"), "missing")
    status = run.end(first)
    assert (status.state, "'secret' leads to '/etc/hostname'" in status.reason) == (JobState.FAILED, True)
    assert "'nothing' is needed, but it is not there" in run.end(second).reason


@pytest.mark.parametrize("when", ["sending", "running"])
def test_cancelled_jobs_end_there_too(run: Run, far: Far, tmp_path: Path, when: str) -> None:
    mark = tmp_path / "alive"
    script = f"while :; do date +%s%N > '{mark}'; sleep 0.1; done"
    if when == "sending":
        far.proxy.refuse()
        far.proxy.cut()
    try:
        job = run.backend.submit(parcel(tmp_path / "p", script), f"cancel {when}")
        if when == "running":
            run.until(job, lambda status: status.state is JobState.RUNNING and mark.exists())
        else:
            run.until(job, lambda status: "Tried again since" in status.reason)
        run.backend.cancel([job])
    finally:
        far.proxy.heal()
    assert run.end(job).state is JobState.CANCELLED
    if when == "running":
        last = mark.read_text()
        time.sleep(0.5)
        assert mark.read_text() == last
    else:
        assert not mark.exists()


def test_a_second_job_in_the_same_folder_waits(run: Run, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"mkdir -p out; until [ -e '{go}' ]; do sleep 0.1; done; date +%s%N >> out/times"
    first = run.backend.submit(parcel(tmp_path / "p", script), "first")
    second = run.backend.submit(parcel(tmp_path / "p", script), "second")
    run.until(second, lambda status: f"waiting for job {first}" in status.reason)
    go.touch()
    assert run.end(first).state is JobState.DONE
    assert run.end(second).state is JobState.DONE
    assert len((tmp_path / "p" / "out" / "times").read_text().split()) == 2


MOVIES = """
mkdir -p out/extra; cd out/extra
for n in 1 2; do
    head -c 3000000 /dev/urandom > movie-${n}_aligned_mic_DW.mrc; echo data > movie-$n.star
done
echo data > movie-1corrected_micrographs.star
until [ -e '{go}' ]; do sleep 0.1; done
echo data > movie-2corrected_micrographs.star
"""


@pytest.mark.parametrize("ending", [JobState.DONE, JobState.CANCELLED])
def test_finished_movies_come_at_once_and_only_once(
    run: Run, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: JobState
) -> None:
    monkeypatch.setattr(trip, "LOGS_EVERY", 1.0)
    go, root = tmp_path / "go", tmp_path / "p"
    (root / "out").mkdir(parents=True)
    spec = parcel(root, MOVIES.replace("{go}", str(go)))
    spec = replace(spec, parcel={**(spec.parcel or {}), "protocol_class": PROTOCOL})
    job = run.backend.submit(spec, f"movies {ending}")
    first = [name for name in output_names("movie-1") if name.endswith(("DW.mrc", ".star"))]
    extra = root / "out" / "extra"
    run.until(job, lambda status: status.state is JobState.RUNNING and (extra / first[-1]).exists())
    assert {file.name for file in extra.iterdir()} == set(first)  # the other one is not finished
    content, before = (extra / first[0]).read_bytes(), far.proxy.passed
    if ending is JobState.DONE:
        go.touch()
    else:
        run.backend.cancel([job])
    assert run.end(job).state is ending
    assert far.proxy.passed - before < 4_000_000  # at most one micrograph more
    second = [name.replace("-1", "-2") for name in first] if ending is JobState.DONE else []
    assert {file.name for file in extra.iterdir()} == {*first, *second}
    assert (extra / first[0]).read_bytes() == content
    assert not list(root.glob(".scipion-cloud-*"))


# --- files


@pytest.fixture
def transfer(far: Far) -> Transfer:
    return Transfer(far.site, Event())


def test_hostile_names_go_there_and_back_and_are_removed(
    far: Far, transfer: Transfer, tmp_path: Path
) -> None:
    names = [
        os.fsdecode(n) for n in (b"-rf", b"#c", b";c", b"new\nline", b"\xff", b"*", b"[a]\\b", b" s ", b"h:p")
    ]
    root = tmp_path / "root"
    for name in names:
        (root / "d" / name).mkdir(parents=True)
        (root / "d" / name / name).write_bytes(os.fsencode(name))
    files = [f"d/{name}/{name}" for name in names]
    transfer.send(root, [*files[1:], files[0]], "projects/odd", lambda _: None)
    transfer.fetch("projects/odd/d/", tmp_path / "back", lambda _: None)
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == sorted(names)
    assert all((tmp_path / "back" / n / n).read_bytes() == os.fsencode(n) for n in names)
    transfer.remove("projects/odd", [f"d/{name}" for name in names if name != "*"])
    assert [p.name for p in (far.area / "projects" / "odd" / "d").iterdir()] == ["*"]
    transfer.remove("projects", ["odd"])
    assert not (far.area / "projects" / "odd").exists()


def test_what_is_there_is_not_sent_again_and_what_changed_is(
    far: Far, transfer: Transfer, tmp_path: Path
) -> None:
    file = tmp_path / "big"
    file.write_bytes(os.urandom(3_000_000))
    transfer.send(tmp_path, ["big"], "projects/again", lambda _: None)
    before = far.proxy.passed
    transfer.send(tmp_path, ["big"], "projects/again", lambda _: None)
    assert far.proxy.passed - before < 100_000
    stamp = file.stat()
    content = bytearray(file.read_bytes())
    content[1_000_000] ^= 1  # the same size and time
    file.write_bytes(content)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    transfer.send(tmp_path, ["big"], "projects/again", lambda _: None)
    assert (far.area / "projects" / "again" / "big").read_bytes() == content
    shutil.rmtree(far.area / "projects" / "again")


def test_a_transfer_that_breaks_goes_on_where_it_was(far: Far, transfer: Transfer, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(20_000_000))
    transfer.send(tmp_path, [], "projects/part", lambda _: None)  # the connection is there
    far.proxy.cut_after(12_000_000)
    with pytest.raises(TransferError, match="the link to Far away broke"):
        transfer.send(tmp_path, ["big"], "projects/part", lambda _: None)
    before = far.proxy.passed
    transfer.send(tmp_path, ["big"], "projects/part", lambda _: None)
    assert far.proxy.passed - before < 15_000_000
    assert (far.area / "projects" / "part" / "big").read_bytes() == (tmp_path / "big").read_bytes()


def test_what_a_killed_rsync_has_left_is_no_result(transfer: Transfer, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    transfer.send(tmp_path, ["a"], "projects/stray", lambda _: None)
    back = tmp_path / "back"
    (back / PARTIAL).mkdir(parents=True)
    (back / PARTIAL / "a").write_text("half")
    (back / ".a.Xq2vLp").write_text("half")
    transfer.fetch("projects/stray/", back, lambda _: None)
    assert {path.name: path.read_text() for path in back.iterdir() if path.is_file()} == {"a": "a"}


def test_a_missing_file_is_told_by_name(transfer: Transfer, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"gone: .*nothing"):
        transfer.send(tmp_path, ["nothing"], "projects/none", lambda _: None)


# --- everything at once


def test_each_job_is_computed_once_whatever_is_killed(tmp_path: Path) -> None:
    outcome = offload(tmp_path, jobs=4, seed="4 jobs")
    assert outcome.is_good, outcome
    assert outcome.faults.total() > 3, outcome
