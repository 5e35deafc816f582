"""The logs of a job that is away, brought home while it runs and at its end."""

import threading
from pathlib import Path

from scipion_cloud.broker.parcel import Parcel
from scipion_cloud.broker.way import Way
from scipion_cloud.errors import TransferError
from scipion_cloud.jobs import JobId, JobSpec

_SIZE = 1 << 20  # bytes of a job's own output that are brought home
_OF_PROTOCOL = ("run.stdout", "run.stderr")


def bring_protocol_logs(way: Way, parcel: Parcel, place: str, stop: threading.Event) -> None:
    """Those of a protocol, so that a person sees them in Scipion; `place` is the root's below the area.

    Raises TransferError, or Stopped.
    """
    logs = parcel.root / parcel.run / "logs"
    if parcel.protocol is not None and logs.is_dir():
        way.transfer(stop).fetch_files(f"{place}/{parcel.run}/logs", _OF_PROTOCOL, logs)


def bring_output(way: Way, remote: JobId, spec: JobSpec, folder: Path) -> None:
    """What the job itself wrote, into the place of a job's own logs here: `folder` unless it names files.

    Raises JobError, or TransferError when the disk refuses.
    """
    logs = way.backend.logs(remote, _SIZE)
    outputs = ((logs.stdout, spec.stdout, "stdout.log"), (logs.stderr, spec.stderr, "stderr.log"))
    for text, path, name in outputs:
        file = spec.cwd / path if path else folder / name
        try:
            file.write_text(text, errors="surrogateescape")
        except OSError as e:
            raise TransferError(f"{file} cannot be written: {e.strerror}.") from e
