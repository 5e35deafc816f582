"""Jobs: one contract, `JobBackend`, and the batch systems that fulfil it.

Names are loaded on first use: a job's supervisor lives in this package and must start in milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scipion_cloud.config import Config
    from scipion_cloud.jobs.backend import JobBackend
    from scipion_cloud.jobs.batch import BatchBackend
    from scipion_cloud.jobs.indexed import IndexedBackend
    from scipion_cloud.jobs.limits import Limits
    from scipion_cloud.jobs.local import LocalBackend
    from scipion_cloud.jobs.spec import JobId, JobInfo, JobLogs, JobSpec, JobState, JobStatus

__all__ = [
    "BatchBackend",
    "IndexedBackend",
    "JobBackend",
    "JobId",
    "JobInfo",
    "JobLogs",
    "JobSpec",
    "JobState",
    "JobStatus",
    "Limits",
    "LocalBackend",
    "backend_for",
]

_HOMES = {
    "BatchBackend": "batch",
    "IndexedBackend": "indexed",
    "JobBackend": "backend",
    "Limits": "limits",
    "LocalBackend": "local",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'spec')}"), name)


def backend_for(config: "Config") -> "IndexedBackend":
    """The home's queue, on the batch system that `<home>/jobs/system.json` names; on this machine without."""
    from scipion_cloud.jobs.limits import Limits  # noqa: PLC0415 - see above
    from scipion_cloud.jobs.systems import backend_at  # noqa: PLC0415

    limits = Limits.of_machine(config.cpus, config.memory_gb, config.max_queued, config.gpus)
    return backend_at(config.jobs, limits)
