"""What a private Slurm's configuration says: text from values, nothing else."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.cluster.gpus import gpu_devices
from scipion_cloud.errors import SetupError
from scipion_cloud.jobs.limits import Limits

MAIN = "main"
INTERACTIVE = "interactive"
LONGEST = 55  # bytes of a folder's path: a socket's may have 107, as spool/NODE/NODE_JOB.STEP of slurmstepd

_MIB = 1024
_PLAIN = re.compile(r"[\w./+@-]+", re.ASCII)


@dataclass(frozen=True)
class NodeShape:
    """What a node of the cluster has."""

    cpus: int
    memory_gb: float  # GiB
    gpus: int = 0

    @classmethod
    def of_machine(cls, limits: Limits | None = None) -> "NodeShape":
        """This machine: what these limits say, or its CPUs, its memory and all its NVIDIA GPUs.

        Raises SetupError for limits with more GPUs than it has.
        """
        there = len(gpu_devices())
        limits = limits or Limits.of_machine(gpus=there)
        if limits.gpus > there:
            raise SetupError(
                f"Jobs are to have {limits.gpus} GPUs, but this machine has {there or 'none'} of NVIDIA's "
                "(/dev/nvidia0 ...), which Slurm can give them. Set gpus in the configuration to what there "
                "is, or install their driver."
            )
        return cls(limits.cpus, limits.memory_gb, limits.gpus)


@dataclass(frozen=True)
class NodeLine:
    """One slurmd of the cluster."""

    name: str
    port: int
    shape: NodeShape


@dataclass(frozen=True)
class Layout:
    """All that the configuration of one cluster depends on."""

    folder: Path
    user: str
    host: str  # the head's own name, as `hostname -s` gives it
    address: str  # by which nodes and clients reach it
    port: int
    nodes: Sequence[NodeLine]
    interactive: NodeLine | None  # for jobs that wait for a person and must not wait for a CPU
    cgroups: bool  # hold jobs to their memory, and end all that they started
    min_job_age: int  # s for which jobs that ended are remembered
    extra: str = ""

    @property
    def slurmds(self) -> list[NodeLine]:
        """All nodes that run on this machine."""
        return [*self.nodes, *([self.interactive] if self.interactive else [])]


def check_folder(folder: Path) -> None:
    """Raises SetupError for a folder whose name Slurm cannot read, or munge's socket cannot have."""
    text = str(folder)
    if not _PLAIN.fullmatch(text):
        raise SetupError(
            f"Slurm cannot be kept in {text!r}: its configuration takes only letters, digits and ./_+@- in "
            "names of folders. Choose another home with SCIPION_CLOUD_HOME."
        )
    if len(text) > LONGEST:
        raise SetupError(
            f"Slurm cannot be kept in {text}: a socket's path must be short, and this has more than "
            f"{LONGEST} characters. Choose another home with SCIPION_CLOUD_HOME."
        )


def slurm_conf(at: Layout) -> str:
    """The text of slurm.conf."""
    folder = at.folder
    lines = [
        "ClusterName=scipion-cloud",
        f"SlurmctldHost={at.host}({at.address})",
        f"SlurmctldPort={at.port}",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"StateSaveLocation={folder}/state",
        f"SlurmUser={at.user}",
        f"SlurmdUser={at.user}",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        f"SlurmdSpoolDir={folder}/spool/%n",
        f"TmpFS={folder}/spool/%n",  # where PMIx meets: nodes that share a disk must not share it
        "SlurmctldSyslogDebug=quiet",
        "SlurmdSyslogDebug=quiet",
        # credentials live for 15 s, since a job that is queued again waits until the old ones are void
        f"AuthInfo=socket={folder}/munge/socket,cred_expire=15",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        "SlurmdParameters=config_overrides",  # a node has what is said here, whatever the machine has
        *(_CGROUPS if at.cgroups else _NO_CGROUPS),
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "DefMemPerCPU=100",
        "JobCompType=jobcomp/filetxt",
        f"JobCompLoc={folder}/jobs.log",
        "AccountingStorageType=accounting_storage/none",
        "MpiDefault=none",
        "PropagateResourceLimits=NONE",
        "KillWait=5",  # s from SIGTERM to SIGKILL after scancel; whoever needs more is asked by us, not by it
        "ReturnToService=2",
        f"MinJobAge={at.min_job_age}",
        "MaxJobCount=200000",
        "MaxArraySize=100001",
        # a machine under load answers late, and is not broken for that
        "MessageTimeout=60",
        "BatchStartTimeout=300",
        "UnkillableStepTimeout=300",
        "SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=5",
        *(["GresTypes=gpu"] if any(node.shape.gpus for node in at.nodes) else []),
        *(_node(node, at) for node in at.slurmds),
        *_partition(MAIN, at.nodes, "Default=YES"),
        *_partition(INTERACTIVE, [at.interactive] if at.interactive else []),
        at.extra,
    ]
    return "\n".join(lines) + "\n"


_NO_CGROUPS = (
    "ProctrackType=proctrack/linuxproc",
    "TaskPlugin=task/none",
    "JobAcctGatherType=jobacct_gather/none",
)
_CGROUPS = (
    "ProctrackType=proctrack/cgroup",
    "TaskPlugin=task/cgroup",
    "JobAcctGatherType=jobacct_gather/cgroup",
)


def cgroup_conf() -> str:
    """The text of cgroup.conf."""
    return "CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\nAllowedSwapSpace=0\n"


def gres_conf(nodes: Sequence[NodeLine], files: Sequence[Path], more: str) -> str:
    """The text of gres.conf; the files are the GPUs of every node, all of which are one machine."""
    lines = [
        f"NodeName={node.name} Name=gpu File={file}\n" for node in nodes for file in files[: node.shape.gpus]
    ]
    return "".join(lines) + more


def _node(node: NodeLine, at: Layout) -> str:
    shape = node.shape
    gres = f" Gres=gpu:{shape.gpus}" if shape.gpus else ""
    return (
        f"NodeName={node.name} NodeAddr={at.address} NodeHostname={at.host} Port={node.port}"
        f" CPUs={shape.cpus} RealMemory={math.ceil(shape.memory_gb * _MIB)}{gres} State=UNKNOWN"
    )


def _partition(name: str, nodes: Sequence[NodeLine], more: str = "") -> list[str]:
    if not nodes:
        return []
    names = ",".join(node.name for node in nodes)
    return [f"PartitionName={name} Nodes={names} MaxTime=INFINITE State=UP {more}".rstrip()]
