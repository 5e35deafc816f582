"""Jobs as JSON: how `remote` and `serve` speak to each other. One message a line, ASCII only.

    there:  {"hello": PROTOCOL, "version": "..."}       once, and an empty line every BEAT seconds
    here:   {"id": 7, "call": "submit", "args": {"spec": {...}, "key": "..."}}
    there:  {"id": 7, "answer": 12}   or   {"id": 7, "error": {"kind": "QueueFull", "text": "..."}}

Requests may overlap; answers come in any order. Texts that are not UTF-8 pass, as the surrogates that Python
makes of them. What `encode` made, `spec_of`, `status_of` and the like bring back, equal.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from scipion_cloud.errors import (
    ConfigError,
    InvalidInput,
    JobError,
    JobRefused,
    NotFound,
    QueueFull,
    ScipionCloudError,
)
from scipion_cloud.jobs.batch_system import Node
from scipion_cloud.jobs.spec import JobId, JobInfo, JobLogs, JobSpec, JobState, JobStatus

PROTOCOL = 1
BEAT = 5.0  # seconds between two signs of life
_ERRORS = {
    kind.__name__: kind for kind in (ConfigError, InvalidInput, JobError, JobRefused, NotFound, QueueFull)
}


def line(message: Mapping[str, Any]) -> bytes:
    """A message as it is sent."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def encode(value: Any) -> Any:
    """Our values, and tuples, lists and mappings of them, as JSON can hold them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(content) for key, content in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [encode(content) for content in value]
    return value


def spec_of(data: dict[str, Any]) -> JobSpec:
    """The JobSpec that was sent. Raises JobRefused for one that only a newer version understands."""
    if unknown := data.keys() - {field.name for field in fields(JobSpec)}:
        raise JobRefused(
            f"The job asks for what this site's Scipion Cloud does not know ({', '.join(unknown)}). "
            "Upgrade the site's scipion-cloud-site.pyz."
        )
    places = {name: _path(data.get(name)) for name in ("stdout", "stderr")}
    return JobSpec(**{**data, **places, "argv": tuple(data["argv"]), "cwd": Path(data["cwd"])})


def status_of(data: dict[str, Any]) -> JobStatus:
    """The JobStatus that was sent."""
    times = {name: _time(data[name]) for name in ("submitted", "started", "ended")}
    return JobStatus(**{**data, **times, "state": JobState(data["state"])})


def statuses_of(data: dict[str, Any]) -> dict[JobId, JobStatus]:
    """The answer of `status`."""
    return {JobId(int(job)): status_of(status) for job, status in data.items()}


def info_of(data: dict[str, Any]) -> JobInfo:
    """The JobInfo that was sent."""
    return JobInfo(**{**data, "status": status_of(data["status"])})


def logs_of(data: dict[str, Any]) -> JobLogs:
    """The JobLogs that were sent; the files are not on this machine."""
    return JobLogs(data["stdout"], data["stderr"], None, None)


def node_of(data: dict[str, Any]) -> Node:
    """The Node that was sent."""
    return Node(**data)


def error(fault: Exception) -> dict[str, str]:
    """An error to send; the nearest kind that the other side knows."""
    kind = next((kind.__name__ for kind in type(fault).__mro__ if kind.__name__ in _ERRORS), "JobError")
    ours = isinstance(fault, ScipionCloudError)
    text = str(fault) if ours else f"The site's program failed: {fault!r}."
    return {"kind": kind, "text": text}


def error_of(data: dict[str, str]) -> ScipionCloudError:
    """The error that was sent, to be raised."""
    return _ERRORS.get(data["kind"], JobError)(data["text"])


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
