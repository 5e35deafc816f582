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


class BridgeError(ScipionCloudError):
    """The Scipion environment could not carry out a call; the message is Scipion's own where there is one."""


class DesktopError(ScipionCloudError):
    """A desktop could not be started or reached."""


class SetupError(ScipionCloudError):
    """Something that Scipion Cloud needs is missing on this machine; the message says how to get it."""
