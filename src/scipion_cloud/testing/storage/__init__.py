"""The contract of `Storage` as tests. A storage passes it by subclassing and giving a `storage`:

class TestFolder(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path): ...
"""

import pytest

from scipion_cloud.storage import Storage
from scipion_cloud.testing.storage.batches import Batches
from scipion_cloud.testing.storage.crowds import Crowds
from scipion_cloud.testing.storage.files import Files
from scipion_cloud.testing.storage.folders import Folders
from scipion_cloud.testing.storage.links import Links
from scipion_cloud.testing.storage.names import Names
from scipion_cloud.testing.storage.sources import Sources

__all__ = ["StorageContract"]


class StorageContract(Files, Batches, Sources, Folders, Names, Links, Crowds):
    """What every storage does. What it does not promise in `capabilities` is tested as not promised."""

    secrets: tuple[str, ...] = ()  # what must never be shown: passwords, tokens, keys

    @pytest.fixture
    def storage(self) -> Storage:
        """The storage under test, empty, without retries; nothing else uses it. Closed by the fixture."""
        raise NotImplementedError
