"""S3 storages pass the contract on real servers."""

from collections.abc import Iterator

import pytest

from scipion_cloud.storage import Storage, open_storage
from scipion_cloud.testing.servers.moto import moto
from scipion_cloud.testing.servers.s3server import SECRET_KEY, S3Server
from scipion_cloud.testing.storage import StorageContract


@pytest.fixture(scope="module")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


class S3Contract(StorageContract):
    secrets = (SECRET_KEY,)

    @pytest.fixture
    def storage(self, server: S3Server) -> Iterator[Storage]:
        url = server.url(f"{server.bucket()}/%20deep%20%252F%20in/the%23bucket")
        with open_storage(url, server.credentials, retry=False) as storage:
            yield storage


class TestRadosgw(S3Contract):
    @pytest.fixture
    def server(self, s3_server: S3Server) -> S3Server:
        return s3_server


class TestMoto(S3Contract):
    @pytest.fixture
    def server(self, moto_server: S3Server) -> S3Server:
        return moto_server
