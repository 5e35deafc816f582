"""An elastic cluster in the folder of a PrivateSlurm: which nodes there can be, where from, and Slurm's
configuration for them.

cluster = ElasticCluster(folder, Elastic(provider="namespaces", nodes=4, cpus=2, memory_gb=2))
slurm = PrivateSlurm(folder, [], **cluster.for_slurm())
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from scipion_cloud.cluster.gpus import gpu_devices, gres_lines, stand_in, task_prolog
from scipion_cloud.cluster.hosts import LONGEST, Network, random_subnet
from scipion_cloud.cluster.namespaces import NamespaceNodes
from scipion_cloud.cluster.ports import free_port
from scipion_cloud.cluster.power import PROLOG, RESUME, SUSPEND, TASK_PROLOG, write_programs
from scipion_cloud.cluster.processes import ProcessNodes
from scipion_cloud.cluster.provider import NodeProvider
from scipion_cloud.cluster.slurm_conf import MAIN
from scipion_cloud.errors import ConfigError
from scipion_cloud.sites.model import Site

STAND_INS = "stand-ins"
GONE_WITHIN = 5  # s from Slurm's wish to remove a node until it may ask for it again
_MIB = 1024


@dataclass(frozen=True)
class Elastic:
    """Nodes of one size that come with the work and go when it is done."""

    provider: str  # "processes", "namespaces"
    nodes: int  # the most at a time
    cpus: int
    memory_gb: float  # GiB
    gpus: int = 0
    idle_seconds: int = 300  # an idle node is removed after this time
    start_seconds: int = 600  # a node that is not up after this time has failed
    price_per_hour: float = 0.0  # of a node
    options: Mapping[str, str] = field(default_factory=dict)  # `quota`, nodes that the provider gives; `gpus`

    @classmethod
    def of(cls, site: Site) -> Self | None:
        """What sites.toml says of this site; None if its nodes are always there."""
        if (told := site.elastic) is None:
            return None
        size = next(f for f in site.flavours if told.flavour in ("", f.name))
        return cls(
            provider=told.provider,
            nodes=told.max_nodes,
            cpus=size.cpus,
            memory_gb=size.memory_gb,
            gpus=size.gpus,
            idle_seconds=told.idle_seconds,
            start_seconds=told.start_seconds,
            price_per_hour=size.price_per_hour,
            options=told.options,
        )


class ElasticCluster:
    """The elastic nodes of the cluster in `folder`. Its id, the nodes' ports and their network are chosen
    once and kept in elastic.json there: jobs that live know them. Raises ConfigError for what no provider
    knows."""

    def __init__(self, folder: Path, elastic: Elastic) -> None:
        self.folder = folder.absolute()
        self.elastic = elastic
        if elastic.provider not in PROVIDERS:
            raise ConfigError(
                f"There is no node provider {elastic.provider!r}; there are {', '.join(PROVIDERS)}."
            )
        if unknown := sorted(elastic.options.keys() - {"quota", "gpus"}):
            raise ConfigError(f"Elastic nodes have no option {unknown[0]!r}; there are: quota, gpus.")
        if not elastic.options.get("quota", "0").isdecimal():
            raise ConfigError(f"quota must be a number of nodes, not {elastic.options['quota']!r}.")
        if elastic.options.get("gpus", STAND_INS) != STAND_INS:
            raise ConfigError(f"gpus can only be {STAND_INS!r}, not {elastic.options['gpus']!r}.")
        self._kept = self._choose()

    @property
    def conf(self) -> Path:
        """The cluster's slurm.conf."""
        return self.folder / "slurm.conf"

    @property
    def power(self) -> Path:
        """The folder of the programs that Slurm runs."""
        return self.folder / "power"

    @property
    def prefix(self) -> str:
        """What names of nodes begin with; no other cluster's do."""
        return f"{self._kept['id']}-"

    @property
    def names(self) -> tuple[str, ...]:
        """All nodes that there can be."""
        return tuple(f"{self.prefix}{number}" for number in range(1, self.elastic.nodes + 1))

    @property
    def quota(self) -> int | None:
        """The most nodes that the provider gives at a time, where it is told."""
        return int(quota) if (quota := self.elastic.options.get("quota")) else None

    @property
    def ports(self) -> dict[str, int]:
        """A port of this machine for each node."""
        return dict(zip(self.names, self._kept["ports"], strict=False))

    @property
    def network(self) -> Network:
        """A network of this machine for the nodes."""
        return Network(self._kept["id"], self._kept["subnet"])

    @property
    def gpus(self) -> list[Path]:
        """The GPUs of this machine, for the nodes that share it: real ones, or stand-ins if they are asked
        for."""
        if not self.elastic.gpus:
            return []
        if "gpus" in self.elastic.options:
            return [stand_in(self.folder, n) for n in range(self.elastic.nodes * self.elastic.gpus)]
        return gpu_devices()

    def provider(self) -> NodeProvider:
        """Where the nodes come from."""
        return PROVIDERS[self.elastic.provider](self)

    def for_slurm(self) -> dict[str, Any]:
        """What PrivateSlurm is to be made with: `address`, `extra`, `gres`; makes the provider's network and
        the programs that Slurm runs. Raises SetupError, and ConfigError for more GPUs than there are."""
        provider = self.provider()
        gpus = provider.gpus(self.names, self.elastic.gpus) if self.elastic.gpus else {}
        prolog = task_prolog(gpus)
        write_programs(self.power, self.conf, {TASK_PROLOG: prolog} if prolog else {})
        lines = [
            *(["GresTypes=gpu"] if gpus else []),
            *([f"TaskProlog={self.power / TASK_PROLOG}"] if prolog else []),
            *self._lines(provider),
        ]
        return {"address": provider.prepare(), "extra": "\n".join(lines), "gres": gres_lines(gpus)}

    def _lines(self, provider: NodeProvider) -> list[str]:
        size = self.elastic
        gres = f" Gres=gpu:{size.gpus}" if size.gpus else ""
        shape = f"CPUs={size.cpus} RealMemory={math.ceil(size.memory_gb * _MIB)}{gres} State=CLOUD"
        return [
            f"ResumeProgram={self.power / RESUME}",
            f"SuspendProgram={self.power / SUSPEND}",
            f"ResumeFailProgram={self.power / SUSPEND}",
            f"PrologSlurmctld={self.power / PROLOG}",
            "ResumeRate=0",
            "SuspendRate=0",
            # a node whose name is in no DNS has the address below, also after it was away
            "SlurmctldParameters=enable_configless,cloud_dns,idle_on_node_suspend,power_save_interval=1,"
            "power_save_min_interval=0",
            "CommunicationParameters=NoAddrCache",
            "TreeWidth=65533",  # nodes come and go: none is to hand on messages for others
            "PrivateData=cloud",  # shows nodes that are off; the name misleads
            *(f"NodeName={name} {provider.place(name)} {shape}" for name in self.names),
            f"PartitionName={MAIN} Nodes={','.join(self.names)} Default=YES MaxTime=INFINITE State=UP"
            f" SuspendTime={size.idle_seconds} SuspendTimeout={GONE_WITHIN}"
            f" ResumeTimeout={size.start_seconds}",
        ]

    def _choose(self) -> dict[str, Any]:
        """What is kept; what is missing in it is chosen now."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        file = self.folder / "elastic.json"
        kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        before = json.dumps(kept)
        kept.setdefault("id", f"sc{os.urandom(4).hex()}"[:LONGEST])
        ports = kept.setdefault("ports", [])
        while len(ports) < self.elastic.nodes:
            ports.append(free_port(ports))
        if "subnet" not in kept and self.elastic.provider == "namespaces":
            kept["subnet"] = random_subnet()
        if json.dumps(kept) != before:
            fresh = file.with_name("elastic.json.new")
            fresh.write_text(json.dumps(kept))
            fresh.replace(file)
        return kept


def _processes(cluster: ElasticCluster) -> NodeProvider:
    nodes = cluster.folder / "nodes"
    return ProcessNodes(nodes, cluster.prefix, cluster.conf, cluster.ports, cluster.quota, cluster.gpus)


def _namespaces(cluster: ElasticCluster) -> NodeProvider:
    nodes = cluster.folder / "nodes"
    return NamespaceNodes(nodes, cluster.prefix, cluster.conf, cluster.network, cluster.quota, cluster.gpus)


PROVIDERS: dict[str, Callable[[ElasticCluster], NodeProvider]] = {
    "processes": _processes,
    "namespaces": _namespaces,
}
