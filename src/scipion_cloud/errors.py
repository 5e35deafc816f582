"""One tree of errors. Each message tells a person what happened and what to do about it."""

from collections.abc import Mapping


class ScipionCloudError(Exception):
    """Base of all errors that Scipion Cloud raises on purpose; its text is fit to be shown to a user."""


class ConfigError(ScipionCloudError):
    """The configuration is wrong; the message names the key and the remedy."""


class InvalidInput(ScipionCloudError):
    """A value or a file given by a user cannot be used; the message says why and what would be right.

    `errors` holds the messages field by field, where the fields are known.
    """

    def __init__(self, message: str = "", errors: Mapping[str, str] | None = None) -> None:
        self.errors = dict(errors or {})
        super().__init__(message or " ".join(self.errors.values()))


class Conflict(ScipionCloudError):
    """What is asked for does not fit the present state; the message says what to end or wait for first."""


class NotFound(ScipionCloudError):
    """The thing asked for does not exist, or its existence is not the asker's business."""


class JobError(ScipionCloudError):
    """The batch system refused or could not carry out a request."""


class QueueFull(JobError):
    """The bounded queue takes no more jobs now; try again when some have ended."""


class JobRefused(JobError):
    """The job asks for what the batch system does not have: the same job will never be taken."""


class TransferError(ScipionCloudError):
    """Files could not be brought to a site or back now; nothing is lost, and the same may succeed later."""


class BridgeError(ScipionCloudError):
    """The Scipion environment could not carry out a call; the message is Scipion's own where there is one."""


class DesktopError(ScipionCloudError):
    """A desktop could not be started or reached."""


class StorageError(ScipionCloudError):
    """A storage refused, or cannot do, what is asked; trying again will not help."""


class StorageMissing(StorageError):
    """There is nothing in the storage under this key."""


class StorageExists(StorageError):
    """There is something under this key already, and it must not be replaced."""


class StorageDenied(StorageError):
    """The storage does not let these credentials do it."""


class StorageFull(StorageError):
    """The storage, or a quota on it, has no room left."""


class StorageTransient(StorageError):
    """The storage did not answer, or answered that it is busy; the same request may succeed later."""


class Locked(Conflict):
    """Somebody else has the project open; the message says who, where, since when and what can be done."""


class LeaseLost(ScipionCloudError):
    """The lease on a project was taken over or could not be renewed in time: this writer has to stop."""


class SyncError(ScipionCloudError):
    """A working copy or a generation is not as it has to be; the message says what was left untouched."""


class NoRoom(SyncError):
    """The disk of a working copy has no room for what is to come; once there is, the same succeeds."""


class NeedsConfirmation(SyncError):
    """A save would delete so much that a person has to say yes first."""


class SetupError(ScipionCloudError):
    """Something that Scipion Cloud needs is missing on this machine; the message says how to get it."""
