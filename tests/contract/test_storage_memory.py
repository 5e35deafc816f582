"""The contract on the storage in memory: able of all, and able of little."""

import pytest

from scipion_cloud.storage import Capabilities, Storage
from scipion_cloud.testing.memory import MemoryStorage
from scipion_cloud.testing.storage import StorageContract

POOR = Capabilities(
    exclusive_create=False,
    rename=False,
    symlinks=False,
    folders=False,
    ranges=False,
    mtime=False,
    byte_names=False,
    max_key=1024,
    max_name=200,
)


class TestMemory(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


class TestPoorMemory(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage(POOR)
