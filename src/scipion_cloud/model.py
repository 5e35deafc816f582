"""The vocabulary that the rooms share: frozen values and state machines, no I/O."""

from enum import StrEnum

AUTOMATIC = "automatic"
"""A wish for where to compute: the site that has the results back first."""

HERE = "here"
"""A wish for where to compute: where the project is open, not at another site."""


class Role(StrEnum):
    """What a member may do in a project."""

    VIEWER = "viewer"  # see everything, look at a desktop
    EDITOR = "editor"  # upload, run, use the desktop
    MANAGER = "manager"  # also members, deletion; the owner is always one


class RunState(StrEnum):
    """The life of a run."""

    WAITING = "waiting"  # accepted; no job yet
    QUEUED = "queued"  # the batch system has it
    RUNNING = "running"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True once nothing will change any more."""
        return self in (RunState.FINISHED, RunState.FAILED, RunState.CANCELLED)


LIVE_RUNS = tuple(state.value for state in RunState if not state.is_final)


class DesktopState(StrEnum):
    """The life of a desktop."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """True once nothing will change any more."""
        return self in (DesktopState.STOPPED, DesktopState.FAILED)


LIVE_DESKTOPS = tuple(state.value for state in DesktopState if not state.is_final)


class MovieState(StrEnum):
    """Where one movie of a run stands."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
