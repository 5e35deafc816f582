"""Projects in storages for the tests of agents."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_site import Site, make_project


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage that holds a project of one generation."""
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    return folder / "storage"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.end()


@pytest.fixture
def project(site: Site, template: Path) -> Site:
    """A site whose storage holds a project of one generation."""
    shutil.copytree(template, site.storage, dirs_exist_ok=True)
    return site
