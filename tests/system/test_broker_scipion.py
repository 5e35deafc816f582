"""A real protocol of RELION, launched as the desktop launches it, runs at another site and is green here."""

import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from scipion_site import in_scipion

from scipion_cloud.broker import known
from scipion_cloud.broker.broker import Broker
from scipion_cloud.broker.parcel import Parcel
from scipion_cloud.broker.queues import write_hosts
from scipion_cloud.config import Config
from scipion_cloud.examples.particles import ParticleSpec, write_particles
from scipion_cloud.jobs import JobId, JobState, JobStatus, backend_for
from scipion_cloud.testing.offload import Far, far_site
from scipion_cloud.tools.bridge import call

pytestmark = pytest.mark.scipion

IMPORT = """
from pwem.protocols import ProtImportParticles
p = project.newProtocol(
    ProtImportParticles, importFrom=ProtImportParticles.IMPORT_FROM_RELION,
    starFile='data/parts/particles.star', samplingRate=6.0, magnification=50000)
p._useQueue.set(False)
project.launchProtocol(p, wait=True)
answer = [p.getStatus(), p.getErrorMessage()]
"""
CLASSIFY = """
particles = next(r for r in project.getRuns() if r.getClassName() == 'ProtImportParticles')
p = project.newProtocol(
    pw.Config.getDomain().getProtocols()['ProtRelionClassify2D'], numberOfClasses=2, numberOfIterations=2,
    numberOfMpi=2, numberOfThreads=1, doGpu=False, useGradientAlg=False, maskDiameterA=320, scratchDir='')
p.inputParticles.set(particles)
p.inputParticles.setExtended('outputParticles')
p._useQueue.set(True)
p.setQueueParams((QUEUE, {'JOB_MEMORY': '1', 'JOB_HOURS': '2'}))
project.launchProtocol(p)
answer = {'id': p.getObjId(), 'run': p.getWorkingDir(), 'jobs': [int(str(j)) for j in p.getJobIds()],
          'status': p.getStatus(), 'error': p.getErrorMessage()}
"""
CONTINUE = """
first = next(r for r in project.getRuns() if r.getObjId() == ID)
p = project.newProtocol(
    type(first), doContinue=True, continueIter='last', numberOfIterations=3, numberOfMpi=2, numberOfThreads=1,
    doGpu=False, scratchDir='')
p.continueRun.set(first)
p._useQueue.set(True)
p.setQueueParams((QUEUE, {'JOB_MEMORY': '1', 'JOB_HOURS': '2'}))
project.launchProtocol(p)
answer = {'id': p.getObjId(), 'run': p.getWorkingDir(), 'jobs': [int(str(j)) for j in p.getJobIds()],
          'status': p.getStatus(), 'error': p.getErrorMessage()}
"""
POSTPROCESS = """
import os
kinds = pw.Config.getDomain().getProtocols()
refine = project.newProtocol(kinds['ProtRelionRefine3D'])
particles = next(r for r in project.getRuns() if r.getClassName() == 'ProtImportParticles')
refine.inputParticles.set(particles)
refine.inputParticles.setExtended('outputParticles')
project.saveProtocol(refine)
os.makedirs(refine._getExtraPath())
for name in ('relion_half1_class001_unfil.mrc', 'relion_half2_class001_unfil.mrc'):
    open(refine._getExtraPath(name), 'w').close()
p = project.newProtocol(kinds['ProtRelionPostprocess'], relionInput=True)
p.protRefine.set(refine)
project.saveProtocol(p)
answer = {'id': p.getObjId(), 'refine': refine.getWorkingDir()}
"""
SEE = """
p = next(r for r in project.getRuns() if r.getObjId() == ID)
images = [c.getRepresentative().getFileName() for c in p.outputClasses.iterItems()]
answer = {'status': p.getStatus(), 'size': p.outputClasses.getSize(), 'images': images,
          'particles': sum(c.getSize() for c in p.outputClasses.iterItems())}
"""


@pytest.fixture(scope="module")
def config(software: Path) -> Iterator[Config]:
    """A home of its own for all tests here."""
    with tempfile.TemporaryDirectory(prefix="sct-home-") as home:
        yield Config(home=Path(home), software=software)


@pytest.fixture(scope="module")
def project(config: Config) -> Path:
    """A project with sixty imported particles."""
    project = config.projects / "particles"
    call("create_project", project, comment="a test", config=config)
    write_particles(project / "data" / "parts", 60, ParticleSpec(snr=1))
    started = in_scipion(config, IMPORT, project)
    assert started[0] == "finished", started
    return project


@pytest.fixture(scope="module")
def far(config: Config, software: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """A site with a Scipion of its own: its settings lie elsewhere, and its MPI is started in another way."""
    folder = tmp_path_factory.mktemp("far")
    there = folder / "scipion-there"  # Scipion does not quote its programs
    home = software / "scipion"
    (there / "config").mkdir(parents=True)
    for name in ("scipion.conf", "protocols.conf"):
        text = (home / "config" / name).read_text()
        (there / "config" / name).write_text(text.replace(str(home), str(there)))
    shutil.copytree(home / "software", there / "software", symlinks=True)
    (there / "env").symlink_to(config.scipion_python.parent.parent)
    with far_site(
        folder,
        config,
        scipion=str(there / "env" / "bin" / "python"),
        scipion_home=str(there),
        software=["relion"],
        mpi="mpirun --oversubscribe --tag-output -np {n}",
    ) as far:
        far.look()
        write_hosts(config)
        yield far


def end(config: Config, job: JobId) -> tuple[JobStatus, list[str]]:
    """Tick until a job has ended; its last status and all that was told of it."""
    broker, backend, told = Broker(config), backend_for(config), [""]
    deadline = time.monotonic() + 600
    while not (status := backend.status([job])[job]).state.is_final:
        assert time.monotonic() < deadline, told
        broker.tick()
        if status.reason != told[-1]:
            told.append(status.reason)
        time.sleep(0.1)
    broker.close()
    return status, told


def test_a_classification_runs_far_away_and_is_green_here(config: Config, project: Path, far: Far) -> None:
    launched = in_scipion(config, f"QUEUE = {far.site.name!r}\n{CLASSIFY}", project)
    assert (launched["status"], launched["error"]) == ("launched", ""), launched
    (job,) = launched["jobs"]
    status, told = end(config, JobId(job))
    assert status.state is JobState.DONE, (status, told)
    assert any(words.startswith("sending") for words in told), told
    errors = (project / launched["run"] / "logs" / "run.stderr").read_text()
    assert "Traceback" not in errors, errors
    seen = in_scipion(config, f"ID = {launched['id']}\n{SEE}", project)
    assert (seen["status"], seen["size"], seen["particles"]) == ("finished", 2, 60)
    assert all((project / image).is_file() for image in seen["images"])
    run = project / launched["run"]
    log = (run / "logs" / "run.stdout").read_text()
    assert "mpirun --oversubscribe --tag-output -np 2" in log  # two processes, started as that site wants it
    assert str(far.area) in log
    assert str(project) not in log
    broken = [p for p in run.rglob("*") if p.is_symlink() and not p.exists()]
    assert not broken
    assert {p for p in sent_files(config, job) if not p.startswith(launched["run"])} == {
        "Runs/000002_ProtImportParticles/particles.sqlite",
        "data/parts/particles.mrcs",
    }
    read = known.probably_read(config, Parcel(project, launched["run"], None, launched["id"]))
    assert {"data/parts/particles.mrcs", "Runs/000002_ProtImportParticles/particles.sqlite"} <= set(
        read.trees[0].files
    )
    least = (project / "data" / "parts" / "particles.mrcs").stat().st_size
    assert least < known.there(config, read)[far.site.name] < read.size  # more is in the folders
    with closing(sqlite3.connect(run / "logs" / "run.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    _one_that_continues_it(config, project, launched)


def _one_that_continues_it(config: Config, project: Path, first: dict[str, Any]) -> None:
    """Its folder has been removed there meanwhile, and goes there with the particles."""
    launched = in_scipion(config, f"ID, QUEUE = {first['id']}, 'far'\n{CONTINUE}", project)
    assert (launched["status"], launched["error"]) == ("launched", ""), launched
    (job,) = launched["jobs"]
    status, told = end(config, JobId(job))
    log = (project / launched["run"] / "logs" / "run.stdout").read_text()
    assert status.state is JobState.DONE, (status, told, log)
    assert "--continue " in log
    seen = in_scipion(config, f"ID = {launched['id']}\n{SEE}", project)
    assert (seen["status"], seen["size"], seen["particles"]) == ("finished", 2, 60)
    sent = sent_files(config, job)
    assert "data/parts/particles.mrcs" in sent
    assert any(p.startswith(first["run"]) and p.endswith("_it002_optimiser.star") for p in sent)


def sent_files(config: Config, job: int) -> set[str]:
    """What went to the site for a job."""
    sent = json.loads((config.jobs / str(job) / "contents.json").read_text())
    return {path for tree in sent["trees"] for path in tree["files"]}


def test_an_input_that_is_a_protocol_goes_with_its_whole_folder(config: Config, project: Path) -> None:
    made = in_scipion(config, POSTPROCESS, project)
    found = call("closure", project, config=config, protocol=made["id"], run_db="project.sqlite")
    halves = {f"{made['refine']}/extra/relion_half{n}_class001_unfil.mrc" for n in (1, 2)}
    assert halves <= set(found["files"])
    assert (found["packages"], found["protocol_class"]) == (["relion"], "ProtRelionPostprocess")
    assert "Runs/000002_ProtImportParticles/particles.sqlite" in found["files"]
    assert "data/parts/particles.mrcs" not in found["files"]  # the images are not read


def test_a_site_without_relion_is_refused_in_scipions_own_words(
    config: Config, project: Path, far: Far
) -> None:
    file = config.home / "sites.toml"
    text, before = file.read_text(), len(backend_for(config).list())
    file.write_text(text.replace('software = ["relion"]', "software = []"))
    try:
        launched = in_scipion(config, f"QUEUE = 'far'\n{CLASSIFY}", project)
    finally:
        file.write_text(text)
    assert launched["status"] == "failed"
    assert "Far away cannot take this: it has no RELION." in launched["error"]
    assert len(backend_for(config).list()) == before


def test_the_dialog_knows_the_sites(config: Config, project: Path, far: Far) -> None:
    queues = in_scipion(
        config,
        "host = project.getHostConfig('localhost')\n"
        "answer = [host.getQueueSystem().queues, host.getMpiCommand(), dict(host.getQueuesDefault())]",
        project,
    )
    assert list(queues[0]) == ["here", "automatic", "far"]
    assert [field[0] for field in queues[0]["far"]] == ["JOB_MEMORY", "JOB_HOURS"]
    assert queues[1] == "mpirun --oversubscribe -np %(JOB_NODES)d %(COMMAND)s"
    assert queues[2]["JOB_GPUS"] == "0"
