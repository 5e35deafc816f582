"""The phases of a deployment, what may follow what, and how an agent's process ends."""

from enum import IntEnum, StrEnum


class Phase(StrEnum):
    """Where a deployment stands."""

    LOCKING = "locking"  # nothing has been touched
    STAGING_IN = "staging_in"  # the project is on its way here; nobody may work yet
    READY = "ready"
    SAVING = "saving"  # work goes on meanwhile
    STAGING_OUT = "staging_out"  # the final save
    SAVE_FAILED = "save_failed"  # the final save failed; it is tried on, the lock and the working copy stay
    RELEASED = "released"  # all is in the storage, and somebody else may open the project
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """True once the agent does nothing more."""
        return self in (Phase.RELEASED, Phase.FAILED)

    @property
    def is_open(self) -> bool:
        """True while people may work in the working copy."""
        return self in (Phase.READY, Phase.SAVING)

    @property
    def is_closing(self) -> bool:
        """True while the final save is under way."""
        return self in (Phase.STAGING_OUT, Phase.SAVE_FAILED)


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.LOCKING: frozenset({Phase.STAGING_IN, Phase.RELEASED, Phase.FAILED}),
    Phase.STAGING_IN: frozenset({Phase.READY, Phase.RELEASED, Phase.FAILED}),
    Phase.READY: frozenset({Phase.SAVING, Phase.STAGING_OUT, Phase.FAILED}),
    Phase.SAVING: frozenset({Phase.READY, Phase.STAGING_OUT, Phase.FAILED}),
    Phase.STAGING_OUT: frozenset({Phase.SAVE_FAILED, Phase.RELEASED, Phase.FAILED}),
    Phase.SAVE_FAILED: frozenset({Phase.STAGING_OUT, Phase.RELEASED, Phase.FAILED}),
    Phase.RELEASED: frozenset(),
    Phase.FAILED: frozenset(),
}


class Exit(IntEnum):
    """The exit code of `scipion-cloud agent run`."""

    RELEASED = 0  # nothing is left to be done; also when it was stopped before anybody could work
    ERROR = 1  # it could not begin: an option, a URL or credentials that cannot be right
    USAGE = 2  # the command line
    LOCKED = 3  # somebody else has the project open
    LEASE_LOST = 4  # somebody else took the project over; the working copy is kept
    NOT_READY = 5  # it failed before anybody could work; the message says why
    BUSY = 6  # another agent works on this state folder
    DIVERGED = 7  # unsaved work is here, but the project in the storage has gone on without it
    UNSAVED = 8  # ended before it could save the work that an earlier run has left
