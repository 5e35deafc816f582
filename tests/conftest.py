"""What several kinds of tests share. The session's own home is made by scipion_cloud.testing.isolation."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scipion_cloud.config import Config, get_config, read_config
from scipion_cloud.testing.postgresql import postgresql


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


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
