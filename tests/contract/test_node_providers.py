"""The contract on the providers whose nodes are processes, and hosts, of this machine."""

from collections.abc import Iterator

import pytest

from scipion_cloud.testing.node_provider import Arena, NodeProviderContract, machines_arena


class TestProcesses(NodeProviderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def arena(cls) -> Iterator[Arena]:
        with machines_arena("processes") as arena:
            yield arena


class TestNamespaces(NodeProviderContract):
    """As root, as in CI."""

    @pytest.fixture(scope="class")
    @classmethod
    def arena(cls) -> Iterator[Arena]:
        with machines_arena("namespaces") as arena:
            yield arena
