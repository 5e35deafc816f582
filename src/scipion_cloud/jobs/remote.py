"""The batch system at the other end of a channel: `serve` answers there for the real one.

RemoteBackend(Channel(("ssh", "site", "python3 scipion-cloud-site.pyz serve --area /data/sc")))
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipion_cloud.jobs import wire
from scipion_cloud.jobs.backend import JobBackend
from scipion_cloud.jobs.batch_system import Node
from scipion_cloud.jobs.channel import Channel
from scipion_cloud.jobs.spec import JobId, JobInfo, JobLogs, JobSpec, JobStatus

__all__ = ["Channel", "RemoteBackend"]


@dataclass(frozen=True)
class RemoteBackend(JobBackend):
    """Jobs elsewhere. Their paths and variables are those of the other end.

    When nothing answers for `patience` seconds, every method raises JobError ("does not answer"): nothing is
    known of the jobs then, and nothing has happened to them.
    """

    channel: Channel
    patience: float = 60.0  # seconds

    def submit(self, spec: JobSpec, key: str) -> JobId:
        """Queue a job there."""
        return JobId(self._ask("submit", spec=_as_there(spec), key=key))

    def submit_all(self, jobs: Sequence[tuple[JobSpec, str]]) -> list[JobId]:
        """Queue many jobs there, in one message."""
        answer = self._ask("submit_all", jobs=[(_as_there(spec), key) for spec, key in jobs])
        return [JobId(job) for job in answer]

    def status(self, ids: Iterable[JobId]) -> dict[JobId, JobStatus]:
        """The status of all these jobs, in one message."""
        return wire.statuses_of(self._ask("status", ids=list(ids)))

    def cancel(self, ids: Iterable[JobId]) -> None:
        """End these jobs; takes as long as it takes there."""
        self.channel.ask("cancel", {"ids": list(ids)}, self.patience, limit=None)

    def logs(self, job: JobId, tail: int = 65536) -> JobLogs:
        """The end of what a job wrote; its files are not on this machine."""
        return wire.logs_of(self._ask("logs", job=job, tail=tail))

    def find(self, key: str) -> JobId | None:
        """The job with this key."""
        answer = self._ask("find", key=key)
        return None if answer is None else JobId(answer)

    def list(self, limit: int = 100) -> tuple[JobInfo, ...]:
        """Live jobs, then the last ones that ended."""
        return tuple(map(wire.info_of, self._ask("list", limit=limit)))

    def tick(self) -> None:
        """A scheduling pass there; `serve` makes them by itself as well."""
        self._ask("tick")

    def about(self) -> dict[str, Any]:
        """What is there: see `serve.Place.about`."""
        answer: dict[str, Any] = self._ask("about")
        return answer

    def nodes(self) -> tuple[Node, ...]:
        """The machines there."""
        return tuple(map(wire.node_of, self._ask("nodes")))

    def _ask(self, call: str, **args: Any) -> Any:
        return self.channel.ask(call, args, self.patience, limit=self.patience)


def _as_there(spec: JobSpec) -> dict[str, Any]:
    """The job as one of that place's own: it has arrived where it was to be sent."""
    content: dict[str, Any] = wire.encode(replace(spec, site="", parcel=None))
    return content
