"""What must not stand in a log."""

import logging
import re

_LINK = re.compile(r"(/sign-in/)[^/\s'\"]+")


class WithoutSecrets(logging.Filter):
    """Takes the secret out of the address of a sign-in link: a refused request may leave it unused."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, its text cleaned."""
        message = record.getMessage()
        if "/sign-in/" in message:
            record.msg, record.args = _LINK.sub(r"\1...", message), ()
        return True
