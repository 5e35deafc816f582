"""The contract on the local batch system."""

from collections.abc import Iterator

import pytest

from scipion_cloud.jobs import JobBackend, Limits, LocalBackend
from scipion_cloud.testing.job_backend import JobBackendContract


class TestLocal(JobBackendContract):
    @pytest.fixture
    def backend(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobBackend]:
        folder = tmp_path_factory.mktemp("it's a\nspool")
        backend = LocalBackend(folder / "jobs", Limits(cpus=2, memory_gb=2.0, gpus=2))
        yield backend
        backend.cancel(info.id for info in backend.list())
