"""Leases in a folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scipion_cloud.storage import Storage, open_storage
from scipion_cloud.testing.lease import LeaseContract


class TestLeasesInAFolder(LeaseContract):
    """Leases in a folder of this machine."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        """An empty folder."""
        with open_storage((tmp_path / "project").as_uri()) as storage:
            yield storage
