"""What several kinds of tests share. The session's own home is made by scipion_cloud.testing.isolation."""

import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from levels import choose_level
from scipion_cloud.config import Config, get_config, read_config
from scipion_cloud.testing.postgresql import postgresql
from scipion_cloud.testing.servers import daemon
from scipion_cloud.testing.servers.radosgw import Radosgw, radosgw

_SHARED = [
    "agent_site",
    "broker_site",
    "desktop_site",
    "run_site",
    "scipion_site",
    "sync_working",
    "upload_site",
]
_SUITES = ["job_backend", "lease", "node_provider", "storage"]
pytest.register_assert_rewrite(*_SHARED, *(f"scipion_cloud.testing.{name}" for name in _SUITES))
choose_level()  # before the modules of tests make settings of their own from it


def pytest_configure() -> None:
    """Hash the passwords of test users quickly: half a second each, for nothing, in hundreds of tests."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


_BEFORE = pytest.StashKey[dict[str, object]]()


_LONG_FIRST = ("browser", "system", "docs", "properties", "contract", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that at the end no process is alone with it."""
    here = Path(__file__).parent
    items.sort(key=lambda item: _LONG_FIRST.index(item.path.relative_to(here).parts[0]))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember what the process is like before the test and its fixtures."""
    item.stash[_BEFORE] = process_state()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """What one test changes in this process for good would meet all that come after it."""
    yield
    before, after = item.stash[_BEFORE], process_state()
    assert after == before, {
        name: (before[name], after[name]) for name in after if after[name] != before[name]
    }


def process_state() -> dict[str, object]:
    """What every program that is started, and every later test, inherits."""
    numbers = signal.valid_signals() - {signal.SIGALRM}  # that one is pytest-timeout's
    handlers = {number: signal.getsignal(number) for number in numbers}
    limits = {
        name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name[:7] == "RLIMIT_"
    }
    (mask,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "Umask:")
    others = {"umask": mask, "folder": os.getcwd(), "nice": os.getpriority(os.PRIO_PROCESS, 0)}  # noqa: PTH109
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return {"handlers": handlers, "limits": limits, "environment": environment, **others}


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh home for one test, short enough for sockets below it, in force through the configuration."""
    folder = Path(tempfile.mkdtemp(prefix="sct-home-"))
    monkeypatch.setenv("SCIPION_CLOUD_HOME", str(folder))
    get_config.cache_clear()
    yield folder
    monkeypatch.undo()
    get_config.cache_clear()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def config(home: Path) -> Config:
    """The configuration of a fresh home."""
    return read_config()


@pytest.fixture(scope="session")
def software() -> Path:
    """The installed Scipion environment: SCIPION_CLOUD_SOFTWARE, or its usual place."""
    config = read_config()
    if not config.scipion_python.exists():
        pytest.fail(
            f"There is no Scipion environment in {config.software}. Run ./scipion-cloud test, which makes it."
        )
    return config.software


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    """The URL of an empty PostgreSQL database (under a second), as the setting `database` takes it."""
    with postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Radosgw]:
    """Ceph's S3 gateway (three seconds). `bucket()` makes an empty bucket."""
    with radosgw() as server:
        yield server


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens now."""
    return daemon.free_port()
