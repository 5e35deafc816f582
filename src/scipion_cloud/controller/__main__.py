"""`python -m scipion_cloud.controller`: the controller as a process of its own."""

import logging
import os
import signal
import sys

import django

from scipion_cloud.config import get_config
from scipion_cloud.controller.bell import Bell
from scipion_cloud.controller.lock import only_one
from scipion_cloud.errors import SetupError

log = logging.getLogger("scipion_cloud.controller")


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code: 1 if another controller works on this home."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scipion_cloud.portal.settings")
    bell = Bell()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: bell.stop())
    config = get_config()
    try:
        with only_one(config.home):
            django.setup()
            # the tables can be imported only now
            from scipion_cloud.controller.loop import run_until_stopped  # noqa: PLC0415

            log.info("at work on %s", config.home)
            run_until_stopped(bell, config)
    except SetupError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    log.info("stopped")
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # at once: what background threads were about is repeated by the next controller
