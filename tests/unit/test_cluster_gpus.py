"""Which GPUs nodes have, and what jobs are told of them."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from scipion_cloud.cluster.elastic import Elastic, ElasticCluster
from scipion_cloud.cluster.gpus import gpu_devices, gres_lines, own_gpus, shared_gpus, task_prolog
from scipion_cloud.cluster.processes import ProcessNodes
from scipion_cloud.cluster.slurm_conf import NodeShape
from scipion_cloud.errors import ConfigError, SetupError
from scipion_cloud.jobs.limits import Limits


def test_gpus_of_a_machine_go_to_one_node_each(tmp_path: Path) -> None:
    size = Elastic("processes", nodes=3, cpus=1, memory_gb=1, gpus=2)
    cluster = ElasticCluster(tmp_path, size)
    nodes = tmp_path / "nodes"
    devices = [Path(f"/dev/nvidia{number}") for number in range(7)]
    machine = ProcessNodes(nodes, cluster.prefix, cluster.conf, cluster.ports, gpu_files=devices)
    gpus = machine.gpus(cluster.names, 2)
    assert [[gpu.number for gpu in gpus[name]] for name in cluster.names] == [[0, 1], [2, 3], [4, 5]]
    assert [gpu.file for name in cluster.names for gpu in gpus[name]] == devices[:6]
    with pytest.raises(ConfigError, match=r"3 elastic nodes with 3 GPUs .* has 7\..*stand-ins"):
        machine.gpus(cluster.names, 3)
    with pytest.raises(ConfigError, match="stand-ins"):
        ElasticCluster(tmp_path, replace(size, options={"gpus": "none"}))
    with pytest.raises(ConfigError, match="elastic nodes with 100 GPUs"):  # more than any machine has
        ElasticCluster(tmp_path, replace(size, gpus=100)).for_slurm()


def test_gpus_of_a_machine_that_is_a_node() -> None:
    gpus = {name: own_gpus(2) for name in ("a", "b")}
    assert gres_lines(gpus).splitlines()[1:3] == [
        "NodeName=a Name=gpu File=/dev/nvidia1",
        "NodeName=b Name=gpu File=/dev/nvidia0",
    ]
    assert task_prolog(gpus) == ""


@pytest.mark.parametrize(
    ("node", "given", "says"),
    [
        ("n1", "0,1", ""),
        ("n2", "0", "export CUDA_VISIBLE_DEVICES=2\n"),
        ("n2", "1,0", "export CUDA_VISIBLE_DEVICES=3,2\n"),
        ("n2", "3,2", ""),  # right already
        ("n2", "", ""),
        ("n2", "NoDevFiles", ""),
        ("n3", "0,1", "export CUDA_VISIBLE_DEVICES=4,5\n"),
        ("elsewhere", "0", ""),
    ],
)
def test_numbers_are_put_right(node: str, given: str, says: str, tmp_path: Path) -> None:
    gpus = shared_gpus(["n1", "n2", "n3"], 2, [tmp_path / f"{number}" for number in range(6)])
    environ = {"SLURMD_NODENAME": node, "CUDA_VISIBLE_DEVICES": given}
    done = subprocess.run(["/bin/sh"], input=task_prolog(gpus), env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, says, "")


def test_gpus_that_a_machine_lists(tmp_path: Path) -> None:
    for name in ("nvidia10", "nvidia2", "nvidia-uvm", "nvidiactl", "null"):
        (tmp_path / name).touch()
    assert [path.name for path in gpu_devices(tmp_path)] == ["nvidia2", "nvidia10"]


def test_a_machine_gives_the_gpus_that_it_is_told_to_and_has() -> None:
    there = len(gpu_devices())
    assert NodeShape.of_machine().gpus == there
    assert NodeShape.of_machine(Limits(2, 2.0)).gpus == 0
    with pytest.raises(
        SetupError, match=rf"to have {there + 1} GPUs, but this machine has {there or 'none'} "
    ):
        NodeShape.of_machine(Limits(2, 2.0, gpus=there + 1))
