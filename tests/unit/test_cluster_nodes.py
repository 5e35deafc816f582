"""What is decided about elastic nodes, what is written down about them, and the small parts."""

import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scipion_cloud.cluster.book import Book, Line
from scipion_cloud.cluster.control import OURS, SlurmNode, _node
from scipion_cloud.cluster.decisions import NOT_MADE, Deed, Step, decide
from scipion_cloud.cluster.elastic import Elastic, ElasticCluster
from scipion_cloud.cluster.history import Point, overview, read_history
from scipion_cloud.cluster.hostlist import expand
from scipion_cloud.cluster.power import listen, write_programs
from scipion_cloud.cluster.provider import NodeState, ProvidedNode
from scipion_cloud.errors import ConfigError, InvalidInput
from scipion_cloud.sites.model import Site

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAUSE = timedelta(seconds=60)


def node(flags: str, reason: str = "", age: float = 0) -> SlurmNode:
    return SlurmNode(
        "a-1", frozenset(flags.split("+")), reason=reason, reason_at=NOW - timedelta(seconds=age)
    )


def machine(state: NodeState | None) -> dict[str, ProvidedNode]:
    return {"a-1": ProvidedNode("a-1", state, "it broke" * (state is NodeState.FAILED))} if state else {}


OFF = "IDLE+CLOUD+POWERED_DOWN"
GOING = "IDLE+CLOUD+POWERING_DOWN"
WANTED = "ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP"
ON = "MIXED+CLOUD"
DOWN = "DOWN+CLOUD+POWERING_UP"
LOST = OURS + "its machine is gone"
UNMADE = OURS + NOT_MADE + "no more"


@pytest.mark.parametrize(
    ("seen", "state", "deed"),
    [
        (node(OFF), None, None),
        (node(OFF), NodeState.UP, Deed.DESTROY),
        (node(OFF), NodeState.STARTING, Deed.DESTROY),
        (node(OFF), NodeState.FAILED, Deed.DESTROY),
        (node(OFF), NodeState.STOPPING, None),
        (node(GOING), NodeState.UP, Deed.DESTROY),
        (node(GOING), None, None),
        (node("ALLOCATED+CLOUD+POWERED_DOWN"), None, None),  # a job is to come: Slurm is about to ask
        (node(WANTED), None, Deed.CREATE),
        (node(WANTED), NodeState.STARTING, Deed.CREATE),  # half made by somebody who is no more
        (node(WANTED), NodeState.UP, None),
        (node(WANTED), NodeState.STOPPING, None),
        (node(WANTED), NodeState.FAILED, Deed.FAIL),
        (node(ON), NodeState.UP, None),
        (node(ON), None, Deed.FAIL),
        (node(ON), NodeState.FAILED, Deed.DESTROY),  # before Slurm is told: no job runs twice at a time
        (node(ON + "+DRAIN"), NodeState.UP, None),
        (node(DOWN, LOST), NodeState.UP, Deed.DESTROY),
        (node(DOWN, LOST), None, Deed.FORGIVE),
        (node(DOWN, UNMADE, age=59), None, None),
        (node(DOWN, UNMADE, age=60), None, Deed.FORGIVE),
        (node(DOWN, UNMADE, age=1), NodeState.FAILED, Deed.DESTROY),
        (node(DOWN, "ResumeTimeout reached", age=59), None, None),
        (node(DOWN, "ResumeTimeout reached", age=61), None, Deed.FORGIVE),
        (node("DOWN+CLOUD+NOT_RESPONDING", "Not responding"), NodeState.UP, Deed.DESTROY),
        (node("DOWN+CLOUD", "a disk is changed"), NodeState.UP, None),  # a person's business
        (node("DOWN+CLOUD+POWERED_DOWN", "a disk is changed"), None, None),
    ],
)
def test_one_step(seen: SlurmNode, state: NodeState | None, deed: Deed | None) -> None:
    steps = decide({"a-1": seen}, machine(state), NOW, pause=PAUSE)
    assert [step.deed for step in steps] == ([deed] if deed else [])


def test_what_we_are_making_is_left_alone_until_it_is_made() -> None:
    assert decide({"a-1": node(WANTED)}, machine(NodeState.STARTING), NOW, begun={"a-1"}, pause=PAUSE) == []


def test_what_slurm_does_not_know_is_removed() -> None:
    assert decide({}, machine(NodeState.UP), NOW, pause=PAUSE) == [
        Step(Deed.DESTROY, "a-1", "nobody owns it")
    ]
    assert decide({}, machine(NodeState.STOPPING), NOW, pause=PAUSE) == []


def test_reading_a_node() -> None:
    line = (
        "NodeName=a-1 CoresPerSocket=1  CPUAlloc=1 CPUEfctv=2 CPUTot=2 Gres=(null) RealMemory=2048 "
        "State=DOWN*+CLOUD+POWERING_UP  Partitions=main  BootTime=None "
        "Reason=scipion-cloud: not made: State=UP [tricky] words [root@2026-03-01T11:59:00]"
    )
    seen = _node(line)
    assert (seen.name, seen.cpus, seen.cpus_used, seen.memory_gb) == ("a-1", 2, 1, 2.0)
    assert seen.flags == {"DOWN", "CLOUD", "POWERING_UP"}
    assert seen.down
    assert not any((seen.wanted, seen.off, seen.on))
    assert seen.ours
    assert seen.reason == "scipion-cloud: not made: State=UP [tricky] words"
    assert seen.reason_at == NOW - timedelta(minutes=1)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("head", ("head",)),
        ("n[1-3,7],head", ("n1", "n2", "n3", "n7", "head")),
        ("sc-[08-11]", ("sc-08", "sc-09", "sc-10", "sc-11")),
        ("a1b,n2-[3]x", ("a1b", "n2-3x")),
    ],
)
def test_lists_of_nodes(text: str, names: tuple[str, ...]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize("text", ["n[1-", "n]", "n[3-1]", "n[a]", "n[-1]", "n[1][2]"])
def test_what_is_no_list_of_nodes(text: str) -> None:
    with pytest.raises(InvalidInput):
        expand(text)


class TestBook:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "slurm" / "nodes.sqlite"

    def test_hours_used_and_saved(self, file: Path) -> None:
        book = Book(file)
        off, busy, idle = (Line("a-1", "off"), Line("a-1", "full", jobs=("x",)), Line("a-1", "idle"))
        other = Line("a-2", "off")
        book.look([off, other], {}, NOW, 0.5)
        book.look([busy, other], {"a-1": None}, NOW + timedelta(hours=1), 0.5)
        book.look([idle, other], {"a-1": None}, NOW + timedelta(hours=3), 0.5)
        book.look([off, other], {}, NOW + timedelta(hours=4), 0.5)
        now = read_history(file, now=NOW + timedelta(hours=10))
        assert (now.hours_used, now.hours_busy, now.hours_saved) == (3, 2, 17)
        assert (now.cost, now.saved) == (1.5, 8.5)
        assert now.began == NOW
        assert now.timeline == (
            Point(NOW, 0, 0),
            Point(NOW + timedelta(hours=1), 1, 1),
            Point(NOW + timedelta(hours=3), 1, 0),
            Point(NOW + timedelta(hours=4), 0, 0),
        )
        assert [line.state for line in now.nodes] == ["off", "off"]
        assert [line.since for line in now.nodes] == [NOW + timedelta(hours=4), NOW]

    def test_a_window_cuts_what_reaches_out_of_it(self, file: Path) -> None:
        book = Book(file)
        book.look([Line("a-1", "idle")], {"a-1": None}, NOW, 1)
        now = read_history(file, timedelta(hours=2), NOW + timedelta(hours=10))
        assert (now.hours_used, now.hours_saved) == (2, 0)
        assert now.timeline[0] == Point(NOW + timedelta(hours=8), 1, 0)

    def test_another_controller_goes_on(self, file: Path) -> None:
        Book(file).look([Line("a-1", "idle")], {"a-1": NOW - timedelta(minutes=30)}, NOW, 1)
        Book(file).look([Line("a-1", "idle")], {"a-1": None}, NOW + timedelta(hours=1), 1)
        Book(file).look([Line("a-1", "off")], {}, NOW + timedelta(hours=2), 1)
        now = read_history(file, now=NOW + timedelta(hours=3))
        assert now.hours_used == 2
        assert now.nodes[0].since == NOW + timedelta(hours=2)

    def test_events(self, file: Path) -> None:
        book = Book(file)
        for number in range(3):
            book.tell("a-1", f"event {number}", NOW)
        assert [event.text for event in read_history(file).events] == ["event 2", "event 1", "event 0"]

    def test_a_home_without_elastic_nodes_has_none(self, tmp_path: Path) -> None:
        assert overview(tmp_path) is None
        Book(tmp_path / "slurm" / "nodes.sqlite").look([Line("a-1", "off")], {}, NOW, 0)
        now = overview(tmp_path)
        assert now is not None
        assert [line.name for line in now.nodes] == ["a-1"]


def test_slurm_rings(tmp_path: Path) -> None:
    folder = tmp_path / "it's a folder"
    write_programs(folder, tmp_path / "slurm.conf", {})
    assert subprocess.run([folder / "resume", "a-[1-3]"], env={}, check=False).returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == ["prolog", "resume", "suspend"]
    rung = threading.Event()
    listen(folder, rung.set)
    for name in ("resume", "suspend"):
        assert subprocess.run([folder / name, "a-[1-3]"], env={}, check=False).returncode == 0
        assert rung.wait(60)
        rung.clear()


def test_a_cluster_keeps_its_names_and_ports(tmp_path: Path) -> None:
    small = ElasticCluster(tmp_path, Elastic("processes", nodes=2, cpus=1, memory_gb=1))
    large = ElasticCluster(tmp_path, Elastic("processes", nodes=4, cpus=1, memory_gb=1))
    assert large.names[:2] == small.names
    assert len(set(large.ports.values())) == 4
    assert small.ports.items() <= large.ports.items()
    elsewhere = ElasticCluster(tmp_path / "b", Elastic("processes", nodes=2, cpus=1, memory_gb=1))
    assert elsewhere.prefix != small.prefix


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="processes, namespaces"):
        ElasticCluster(tmp_path, Elastic("moon", nodes=2, cpus=1, memory_gb=1))
    with pytest.raises(ConfigError, match="quota"):
        ElasticCluster(
            tmp_path, Elastic("processes", nodes=2, cpus=1, memory_gb=1, options={"colour": "red"})
        )
    with pytest.raises(ConfigError, match="many"):
        ElasticCluster(
            tmp_path, Elastic("processes", nodes=2, cpus=1, memory_gb=1, options={"quota": "many"})
        )


def test_from_a_site() -> None:
    table = {
        "name": "here",
        "kind": "home",
        "batch": "slurm",
        "flavours": [
            {"name": "small", "cpus": 2, "memory_gb": 4},
            {"name": "large", "cpus": 16, "memory_gb": 64, "gpus": 1, "price_per_hour": 1.5},
        ],
        "elastic": {"provider": "processes", "max_nodes": 3, "flavour": "large", "options": {"quota": "2"}},
    }
    elastic = Elastic.of(Site.model_validate(table))
    assert elastic == Elastic("processes", 3, 16, 64, gpus=1, price_per_hour=1.5, options={"quota": "2"})
    assert Elastic.of(Site.model_validate({"name": "here", "kind": "home"})) is None
