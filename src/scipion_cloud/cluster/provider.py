"""Where elastic nodes come from: processes here, hosts in network namespaces, clouds.

`scipion_cloud.testing.node_provider` tests the contract; docs/how-to/elastic-nodes.md tells how to add one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from scipion_cloud.cluster.gpus import Gpu, own_gpus
from scipion_cloud.errors import ScipionCloudError


class NoCapacity(ScipionCloudError):
    """No node of this kind can be had now: a quota is used up, or the provider has none left."""


class NodeState(StrEnum):
    """The life of a machine, as its provider sees it."""

    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"
    FAILED = "failed"  # of no use any more; `destroy` clears it away


@dataclass(frozen=True)
class ProvidedNode:
    """A machine that exists, or half exists."""

    name: str  # the node's name in Slurm
    state: NodeState
    message: str = ""  # why it failed, for people
    since: datetime | None = None  # when its making began, where the provider knows


class NodeProvider(ABC):
    """Creates and removes machines. All of them are known by their node's name, which is what makes every
    call safe to repeat; what exists is asked of the provider, never remembered.

    Calls come from several threads at a time, for one node never two.
    """

    @abstractmethod
    def create(self, name: str) -> None:
        """Begin to make a node, or finish one that was left half made; nothing if it is there.

        Returns before it is up. Raises NoCapacity, or ScipionCloudError for what may pass.
        """

    @abstractmethod
    def destroy(self, names: Sequence[str]) -> None:
        """Remove nodes with all that runs on them; those that do not exist are no error.

        When it returns nothing runs there any more: the nodes' jobs may then start elsewhere.
        """

    @abstractmethod
    def nodes(self) -> Mapping[str, ProvidedNode]:
        """All nodes that this provider has made for this cluster, half made ones too, by name.

        Raises ScipionCloudError when it cannot tell; that a node is missing means that it is gone.
        """

    def prepare(self) -> str:
        """Make what all nodes share, a network maybe; the head's address for them. May be repeated."""
        return "127.0.0.1"

    def clear(self) -> None:
        """Remove all nodes and what `prepare` made. May be repeated."""
        self.destroy(list(self.nodes()))

    def place(self, name: str) -> str:
        """Where a node is, in slurm.conf's words; by its name in the DNS unless a provider knows better."""
        return f"NodeAddr={name}"

    def gpus(self, names: Sequence[str], count: int) -> Mapping[str, Sequence[Gpu]]:
        """The `count` GPUs of each node; of all its own machine's the first, unless a provider knows better.

        Nodes that share a machine never have the same one. Raises ConfigError if there are too few.
        """
        return {name: own_gpus(count) for name in names}
