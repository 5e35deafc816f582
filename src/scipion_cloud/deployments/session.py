"""What an agent remembers between its processes: its id, and whether work lies in the working copy."""

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scipion_cloud.errors import Conflict, SyncError
from scipion_cloud.sync.files import write_whole

LOCK_FILE = "agent.lock"
SESSION_FILE = "session.json"


class AgentRuns(Conflict):
    """Another agent works on this state folder."""


@dataclass(frozen=True)
class Session:
    """One line of life of a working copy. It is `open` from before anybody may work in it until the lock is
    released: what an open session left behind is work, and never restored over."""

    deployment: str
    storage: str = ""  # URL
    open: bool = False
    base: int | None = None  # the project's last generation when it was opened


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Keep other agents away from a state folder, which is made. Raises Conflict if one is there."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(state / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(fd, 20, 0).decode(errors="replace").strip()
            raise AgentRuns(
                f"An agent{f' (process {other})' if other else ''} works with {state} already. Look at it "
                "with `scipion-cloud agent status`, close it, or give this one another --work and --state."
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def load(state: Path, storage: str, deployment: str | None = None) -> Session:
    """The session of a state folder; a fresh one on its first use.

    Raises SyncError if unsaved work of another project or deployment is here, or the file is damaged.
    """
    file = state / SESSION_FILE
    try:
        session = Session(**json.loads(file.read_bytes()))
    except FileNotFoundError:
        return store(state, Session(deployment or uuid.uuid4().hex, storage))
    except (ValueError, TypeError) as e:
        raise SyncError(
            f"{file} is damaged. If nothing unsaved is in the working copy, delete {state}; else keep both."
        ) from e
    wanted = (storage, deployment or session.deployment)
    if session.open and wanted != (session.storage, session.deployment):
        raise SyncError(
            f"Unsaved work of {session.storage} (deployment {session.deployment}) is in this working copy: "
            "start its agent again to have it saved, or use another --work and --state."
        )
    if wanted != (session.storage, session.deployment):
        session = store(state, Session(wanted[1], storage))
    return session


def store(state: Path, session: Session) -> Session:
    """Write it down so that it survives a power cut; returns it."""
    write_whole(state / SESSION_FILE, json.dumps(asdict(session), indent=2).encode())
    return session


def opened(state: Path, session: Session, base: int | None) -> Session:
    """From now on there may be work in the working copy, on top of generation `base`."""
    return store(state, replace(session, open=True, base=base))


def closed(state: Path, session: Session) -> Session:
    """All work is in the storage."""
    return store(state, replace(session, open=False))
