"""The GPUs of nodes: which files they are, what programs call them, and how Slurm is told.

A GPU belongs to one node. Slurm counts a node's files and knows nothing else: the same file on two nodes
would be given to two jobs at a time. It numbers the GPUs of every node from 0, so on a machine with several
nodes the numbers have to be put right when a job starts.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_DEV = Path("/dev")

# Runs before each program of a job, also below one in which the numbers are right: all of those are
# beyond the first node's, and left as they are.
_PROLOG = """\
#!/bin/sh
case $SLURMD_NODENAME in
{cases}
*) exit 0 ;;
esac
right=
IFS=,
for number in $CUDA_VISIBLE_DEVICES; do
    case $number in
    *[!0-9]*) exit 0 ;;
    esac
    [ "$number" -lt $# ] || exit 0
    eval "right=\\$right,\\${{$((number + 1))}}"
done
[ -z "$right" ] || echo "export CUDA_VISIBLE_DEVICES=${{right#,}}"
"""


@dataclass(frozen=True)
class Gpu:
    """A GPU as its machine knows it."""

    number: int  # in CUDA_VISIBLE_DEVICES
    file: Path


def gpu_devices(folder: Path = _DEV) -> list[Path]:
    """The NVIDIA GPUs of this machine, in order."""
    found = [path for path in folder.glob("nvidia*") if path.name[6:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[6:]))


def stand_in(folder: Path, number: int) -> Path:
    """A file of `folder` for a GPU that does not exist: jobs get its number, and no GPU."""
    link = folder / f"gpu{number}"
    if not link.is_symlink():
        link.symlink_to(os.devnull)  # Slurm wants a device
    return link


def own_gpus(count: int) -> list[Gpu]:
    """The GPUs of a machine that is a node."""
    return [Gpu(number, _DEV / f"nvidia{number}") for number in range(count)]


def shared_gpus(nodes: Sequence[str], count: int, files: Sequence[Path]) -> Mapping[str, Sequence[Gpu]]:
    """The GPUs of nodes on one machine, `count` for each, if these are the files of them all."""
    gpus = [Gpu(number, file) for number, file in enumerate(files)]
    return {node: gpus[count * place : count * (place + 1)] for place, node in enumerate(nodes)}


def gres_lines(nodes: Mapping[str, Sequence[Gpu]]) -> str:
    """The nodes' lines of gres.conf."""
    return "".join(
        f"NodeName={node} Name=gpu File={gpu.file}\n" for node, gpus in nodes.items() for gpu in gpus
    )


def task_prolog(nodes: Mapping[str, Sequence[Gpu]]) -> str:
    """A program for Slurm's TaskProlog by which jobs see the machine's own numbers of their GPUs; empty where
    they do so anyway."""
    cases = [
        f"{node}) set -- {' '.join(str(gpu.number) for gpu in gpus)} ;;"
        for node, gpus in nodes.items()
        if [gpu.number for gpu in gpus] != list(range(len(gpus)))
    ]
    return _PROLOG.format(cases="\n".join(cases)) if cases else ""
