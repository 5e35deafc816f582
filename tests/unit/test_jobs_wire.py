"""What is sent is what arrives."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scipion_cloud.errors import JobError, JobRefused, NotFound, QueueFull, ScipionCloudError
from scipion_cloud.jobs import JobId, JobInfo, JobLogs, JobSpec, JobState, JobStatus, wire
from scipion_cloud.jobs.batch_system import NoAnswer, Node

texts = st.one_of(
    st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    st.binary().map(lambda raw: os.fsdecode(raw.replace(b"\0", b""))),
)
times = st.none() | st.datetimes(timezones=st.just(UTC))
statuses = st.builds(
    JobStatus,
    st.sampled_from(JobState),
    st.none() | st.integers(-64, 255),
    texts,
    times,
    times,
    times,
)
specs = st.builds(
    JobSpec,
    argv=st.lists(texts.filter(bool), min_size=1).map(tuple),
    cwd=texts.map(lambda text: Path("/", text)),
    name=texts,
    cpus=st.integers(0, 64),
    tasks=st.integers(1, 64),
    gpus=st.integers(0, 8),
    memory_gb=st.floats(0.001, 1e6),
    hours=st.none() | st.floats(0.001, 1e6),
    grace=st.floats(0, 1e6),
    env=st.dictionaries(texts.filter(lambda text: text and "=" not in text), texts),
    stdout=st.none() | texts.map(Path),
    stderr=st.none() | texts.map(Path),
    owner=texts,
    resumable=st.booleans(),
    site=texts,
    parcel=st.none() | st.dictionaries(st.text(), st.none() | st.integers() | st.lists(st.text())),
)


def passed(value: object) -> object:
    """A value after its way through a connection."""
    text = wire.line({"value": wire.encode(value)})
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    return json.loads(text)["value"]


@given(specs)
def test_specs(spec: JobSpec) -> None:
    assert wire.spec_of(passed(spec)) == spec  # type: ignore[arg-type]


@given(st.dictionaries(st.integers(1).map(JobId), statuses))
def test_statuses(found: dict[JobId, JobStatus]) -> None:
    assert wire.statuses_of(passed(found)) == found  # type: ignore[arg-type]


@given(texts, statuses)
def test_rows(text: str, status: JobStatus) -> None:
    row = JobInfo(JobId(7), text, text, 2, 1.5, status, 12.5)
    assert wire.info_of(passed(row)) == row  # type: ignore[arg-type]
    node = Node(text, "idle", 4, 1, 16.5, 1, text)
    assert wire.node_of(passed(node)) == node  # type: ignore[arg-type]


def test_logs_come_without_the_files_of_the_other_machine() -> None:
    logs = JobLogs("out\n", "caf\ufffd", Path("/out"), Path("/err"))
    assert wire.logs_of(passed(logs)) == replace(logs, stdout_path=None, stderr_path=None)  # type: ignore[arg-type]


def test_a_moment_keeps_its_microseconds() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    status = JobStatus(JobState.RUNNING, started=moment)
    assert wire.status_of(passed(status)).started == moment  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (QueueFull("full"), QueueFull),
        (JobRefused("too large"), JobRefused),
        (NotFound("no job 7"), NotFound),
        (NoAnswer("silent"), JobError),
    ],
)
def test_errors_keep_their_kind(fault: ScipionCloudError, kind: type[ScipionCloudError]) -> None:
    found = wire.error_of(passed(wire.error(fault)))  # type: ignore[arg-type]
    assert type(found) is kind
    assert str(found) == str(fault)


def test_unexpected_errors_and_newer_kinds_are_job_errors() -> None:
    found = wire.error_of(wire.error(ZeroDivisionError("oh")))
    assert type(found) is JobError
    assert "oh" in str(found)
    assert type(wire.error_of({"kind": "MadeLater", "text": "x"})) is JobError


def test_what_only_a_newer_version_knows_is_refused() -> None:
    data = wire.encode(JobSpec(("true",), Path("/")))
    with pytest.raises(JobRefused, match=r"does not know \(colour\)"):
        wire.spec_of({**data, "colour": "red"})
