"""What a desktop's Scipion finds: our view of the protocols, and one road to the batch system."""

import os
from pathlib import Path

import pytest
from scipion_site import in_scipion, make_project, statuses, until

from scipion_cloud.config import Config
from scipion_cloud.jobs import JobId, backend_for
from scipion_cloud.tools.snapshot import ProtocolInfo, read_project

pytestmark = [pytest.mark.scipion, pytest.mark.timeout(150), pytest.mark.usefixtures("software")]

LAUNCH_IMPORT = """
from pwem.protocols import ProtImportMovies
p = project.newProtocol(ProtImportMovies, filesPath="data", filesPattern="*.tif", samplingRate=1.5)
p._useQueue.set(True)
p.setQueueParams(("local", {"JOB_MEMORY": "1", "JOB_HOURS": "1"}))
project.launchProtocol(p)
answer = [p.getObjId(), p.getStatus()]
"""


def test_our_view_is_in_the_tree_of_protocols(config: Config) -> None:
    program = """
from pyworkflow.gui.project.viewprotocols_extra import ProtocolTreeConfig
views = ProtocolTreeConfig.load(project.getDomain(), pw.Config.SCIPION_PROTOCOLS)
def leaves(node):
    return [x for c in node.childs for x in leaves(c)] if len(node.childs) else [str(node.value)]
answer = [leaves(views["Scipion Cloud"]), sorted(project.getDomain().getPlugins())]
"""
    leaves, plugins = in_scipion(config, program, make_project(config, movies=0))
    assert leaves == ["ProtImportMovies", "ProtRelionMotioncor"]
    assert {"pwem", "relion", "scipion_cloud_em"} <= set(plugins)


def test_a_protocol_launched_in_the_desktop_is_a_job(config: Config) -> None:
    project = make_project(config, movies=1)
    number, status = in_scipion(config, LAUNCH_IMPORT, project)
    assert status == "launched"

    def protocol() -> ProtocolInfo:
        found = read_project(project).find(number)
        assert found is not None
        return found

    job = JobId(int(protocol().job_id))
    backend = backend_for(config)
    until(lambda: backend.status([job])[job].state.is_final, timeout=240)
    assert backend.status([job])[job].state == "DONE", backend.logs(job)
    assert protocol().status == "finished"
    assert protocol().outputs == ("outputMovies",)
    assert set(statuses(config, project).values()) == {"finished"}


@pytest.mark.parametrize(
    ("word", "status"),
    [("QUEUED", "running"), ("RUNNING", "running"), ("UNKNOWN", "running"), ("DONE", "finished"),
     ("FAILED", "finished"), ("CANCELLED", "finished")],
)  # fmt: skip
def test_only_final_words_end_a_job(config: Config, tmp_path: Path, word: str, status: str) -> None:
    fake = tmp_path / "scipion-cloud"
    fake.write_text(f"#!/bin/sh\necho {word}\n")
    fake.chmod(0o755)
    program = """
from pyworkflow.protocol.launch import _checkJobStatus
answer = _checkJobStatus(project.getHostConfig("localhost"), 7)
"""
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert in_scipion(config, program, make_project(config, movies=0), PATH=path) == status


def test_no_protocol_avoids_the_batch_system(config: Config) -> None:
    program = """
host = project.getHostConfig("localhost")
conf = pw.Config
answer = [host.isQueueMandatory(), conf.SCIPION_USE_QUEUE, conf.SCIPION_NOTIFY, host.getMpiCommand()]
"""
    mandatory, default, notify, mpi = in_scipion(config, program, make_project(config, movies=0))
    assert mandatory == 1
    assert default is True
    assert notify is False
    assert "--oversubscribe" in mpi


def test_copies_of_a_live_project_are_whole(config: Config) -> None:
    """Scipion copies project.sqlite at each launch; reading the file while others write gives torn copies."""
    program = """
import multiprocessing, sqlite3, time
from pyworkflow.utils import copyFile
from pyworkflow.utils.path import copyFile as same
assert copyFile is same
def write(stop):
    db = sqlite3.connect("project.sqlite", timeout=60)
    while not stop.is_set():
        rows = [("v" * 500,)] * 50
        db.executemany("INSERT INTO Objects (name, classname, value) VALUES ('x', 'String', ?)", rows)
        db.execute("DELETE FROM Objects WHERE name = 'x'")
        db.commit()
        time.sleep(0.01)
stop = multiprocessing.Event()
writer = multiprocessing.Process(target=write, args=(stop,))
writer.start()
bad = 0
for i in range(20):
    copyFile("project.sqlite", "copy.db")
    bad += sqlite3.connect("copy.db").execute("PRAGMA integrity_check").fetchone() != ("ok",)
stop.set()
writer.join()
answer = bad
"""
    assert in_scipion(config, program, make_project(config, movies=0)) == 0
