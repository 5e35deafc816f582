"""A pytest plugin that gives the whole test session a home and a database of its own.

Load it with `-p scipion_cloud.testing.isolation`: it must come before Django's settings are read. The
installed Scipion environment (SCIPION_CLOUD_SOFTWARE, or its usual place) is shared; no other setting reaches
the tests. With `--database postgresql` the tests that touch the database, and only those, run on a borrowed
PostgreSQL server instead of SQLite.
"""

import os
import shutil
import signal
import tempfile
from contextlib import ExitStack

import pytest

from scipion_cloud.config import ENV_PREFIX, Config, get_config
from scipion_cloud.testing.postgresql import postgresql

_OURS = [f"{ENV_PREFIX}{name.upper()}" for name in Config.model_fields if name != "software"]
_DATABASE_FIXTURES = {"db", "transactional_db", "django_db_reset_sequences"}
for _name in _OURS:
    os.environ.pop(_name, None)

# a shell's background jobs ignore Ctrl-C, and nohup the end of the terminal: so would what the tests start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)  # for children it is as it always was

# short, for the desktops' sockets, and not below a folder that pytest keeps for later
HOME = tempfile.mkdtemp(prefix="sct-")
os.environ[f"{ENV_PREFIX}HOME"] = HOME
get_config.cache_clear()
_lent = ExitStack()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--database`."""
    parser.addoption(
        "--database",
        choices=["sqlite", "postgresql"],
        default="sqlite",
        help="What the tests' database is; with postgresql only the tests that touch it are run.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start the database's server before Django looks for it."""
    if early_config.known_args_namespace.database == "postgresql":
        os.environ[f"{ENV_PREFIX}DATABASE"] = _lent.enter_context(postgresql())
        get_config.cache_clear()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not touch the database, when the database is what the session is about."""
    if config.option.database == "sqlite":
        return
    others = [item for item in items if not _touches_database(item)]
    items[:] = [item for item in items if _touches_database(item)]
    config.hook.pytest_deselected(items=others)


def pytest_unconfigure() -> None:
    """Remove the home and end the server."""
    _lent.close()
    shutil.rmtree(HOME, ignore_errors=True)


def _touches_database(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    return item.get_closest_marker("django_db") is not None or not fixtures.isdisjoint(_DATABASE_FIXTURES)
