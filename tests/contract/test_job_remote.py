"""The contract at the other end of ssh, behind the site's door; and whatever can break on the way."""

import contextlib
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from scipion_cloud.cluster.private import PrivateSlurm
from scipion_cloud.errors import JobError
from scipion_cloud.jobs import JobBackend, JobId, JobState, channel, wire
from scipion_cloud.jobs.remote import Channel, RemoteBackend
from scipion_cloud.testing.job_backend import JobBackendContract, is_alive, sh, wait_file, wait_for
from scipion_cloud.testing.servers.proxy import Proxy, fault_proxy
from scipion_cloud.testing.servers.site_host import Login, SiteHost, site_host
from scipion_cloud.testing.servers.slurm import slurm

LOCAL = ("--batch", "local", "--option", "cpus=2", "--option", "memory_gb=2", "--option", "gpus=2")
SAVING = "trap 'until [ -e go ]; do sleep 0.1; done; exit 0' TERM; echo > ready; while :; do sleep 0.1; done"
SERVE = (sys.executable, "-m", "scipion_cloud.jobs.serve", *LOCAL, "--area")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteHost]:
    with site_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def login(host: SiteHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    login = host.admit(tmp_path_factory.mktemp("it's a 电子") / "area", *LOCAL)
    yield login
    clear(RemoteBackend(login.channel()))


@pytest.fixture
def near(tmp_path: Path) -> Iterator[RemoteBackend]:
    """The same without ssh."""
    backend = RemoteBackend(Channel((*SERVE, str(tmp_path / "area"))))
    yield backend
    clear(backend)


def clear(backend: JobBackend) -> None:
    backend.cancel(info.id for info in backend.list())
    channel.close_all()


class TestRemoteLocal(JobBackendContract):
    @pytest.fixture
    def backend(self, login: Login) -> JobBackend:
        return RemoteBackend(login.channel())


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateSlurm]:
    with slurm(cpus=2, memory_gb=2.0, gpus=2) as running:
        yield running


class TestRemoteSlurm(JobBackendContract):
    @pytest.fixture
    def backend(
        self, host: SiteHost, cluster: PrivateSlurm, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[JobBackend]:
        area = tmp_path_factory.mktemp("it's a 电子") / "area"
        words = [word for option in cluster.options.items() for word in ("--option", "=".join(option))]
        backend = RemoteBackend(host.admit(area, "--batch", "slurm", *words).channel())
        yield backend
        clear(backend)

    def test_nodes(self, backend: RemoteBackend) -> None:
        (node,) = backend.nodes()
        assert (node.cpus, node.memory_gb, node.gpus) == (2, 2.0, 2)
        assert backend.about()["batch"] == "slurm"


def marks(folder: Path) -> list[int]:
    return sorted(int(line) for line in (folder / "marks").read_text().split())


# --- links


@pytest.fixture
def proxy(login: Login) -> Iterator[Proxy]:
    with fault_proxy("127.0.0.1", login.port) as proxy:
        yield proxy


def test_link_cut_at_any_byte(login: Login, proxy: Proxy, tmp_path: Path) -> None:
    backend = RemoteBackend(login.channel(proxy.port), patience=240)
    backend.list()
    before = proxy.passed
    backend.submit(sh("echo 0 >> marks", tmp_path), "0")
    each = proxy.passed - before
    for n in range(1, 9):
        proxy.cut_after(1 + each * n // 8)
        backend.submit(sh(f"echo {n} >> marks", tmp_path), f"{n}")
    proxy.heal()
    jobs = [info.id for info in backend.list()]
    assert {status.state for status in wait_for(backend, *jobs)} == {JobState.DONE}
    assert marks(tmp_path) == list(range(9))


def test_link_cut_while_a_job_ends(login: Login, proxy: Proxy, tmp_path: Path) -> None:
    backend = RemoteBackend(login.channel(proxy.port), patience=240)
    job = backend.submit(replace(sh(SAVING, tmp_path), grace=600), "a")
    wait_file(tmp_path / "ready")
    with ThreadPoolExecutor(1) as pool:
        cancel = pool.submit(backend.cancel, [job])
        while proxy.accepted < 3:  # it came back twice
            proxy.cut()
            time.sleep(0.3)
        (tmp_path / "go").touch()
        cancel.result(240)
    assert backend.status([job])[job].state is JobState.CANCELLED


def test_silent_link(login: Login, proxy: Proxy, tmp_path: Path) -> None:
    """Nothing is said of the jobs while nothing is known, and afterwards they are as they were."""
    backend = RemoteBackend(login.channel(proxy.port), patience=240)
    hasty = replace(backend, patience=2)
    job = backend.submit(sh("until [ -e go ]; do sleep 0.1; done", tmp_path), "a")
    proxy.stall()
    for ask in (lambda: hasty.status([job]), lambda: hasty.submit(sh("true", tmp_path), "b"), hasty.list):
        with pytest.raises(JobError, match="The site does not answer"):
            ask()
    proxy.heal()
    assert backend.status([job])[job].state in (JobState.QUEUED, JobState.RUNNING)
    (tmp_path / "go").touch()
    (status,) = wait_for(backend, job)
    assert status.state is JobState.DONE
    assert backend.submit(sh("true", tmp_path), "a") == job


def test_long_outage(login: Login, proxy: Proxy, tmp_path: Path) -> None:
    """A request waits while the link is away, and is answered when it is back."""
    backend = RemoteBackend(login.channel(proxy.port), patience=240)
    backend.list()
    proxy.refuse()
    proxy.cut()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(backend.submit, sh(f"echo {n} >> marks", tmp_path), f"{n}") for n in range(4)]
        while proxy.accepted < 5:
            time.sleep(0.05)
        assert not [job for job in jobs if job.done()]
        proxy.heal()
        ids = [job.result() for job in jobs]
    wait_for(backend, *ids)
    assert marks(tmp_path) == list(range(4))


def test_way_that_leads_nowhere(login: Login, tmp_path: Path, free_port: int) -> None:
    def fault(way: Channel, patience: float = 240) -> str:
        with pytest.raises(JobError, match="does not answer") as caught:
            RemoteBackend(way, patience).list()
        return str(caught.value)

    assert fault(login.channel(free_port), patience=1)
    # what will not get better is said at once
    assert "no-such-program" in fault(Channel(("no-such-program",)))
    assert "This key is for" in fault(Channel((*login.ssh(), "127.0.0.1", "uname -a")))
    stranger = replace(login, known_hosts=tmp_path / "none")
    assert "Host key verification failed" in fault(stranger.channel())
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    assert "Permission denied" in fault(replace(login, key=key).channel())


# --- what dies


def test_killed_at_random_instants(login: Login, tmp_path: Path) -> None:
    """kill -9 of ssh here or of serve there, each time when work has been done since: all jobs run once."""
    backend = RemoteBackend(login.channel(), patience=240)
    done: list[int] = []

    def submit(n: int) -> int:
        job = backend.submit(sh(f"echo {n} >> marks", tmp_path), f"{n}")
        done.append(n)
        return job

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(submit, n) for n in range(24)]
        for seen in range(1, 20, 3):
            while len(done) < seen:
                time.sleep(random.uniform(0, 0.02))  # noqa: S311
            victims: list[psutil.Process] = []
            while not victims and len(done) < len(jobs):  # with all done nobody connects again
                victims = [*processes("ssh", str(login.key)), *processes("door", str(login.area))]
            with contextlib.suppress(IndexError, psutil.NoSuchProcess):
                random.choice(victims).kill()  # noqa: S311
        ids = [JobId(job.result()) for job in jobs]
    assert len(set(ids)) == 24
    assert {status.state for status in wait_for(backend, *ids)} == {JobState.DONE}
    assert marks(tmp_path) == list(range(24))


def processes(*words: str) -> list[psutil.Process]:
    """The processes whose command line has all these texts."""
    return [p for p in psutil.process_iter() if p.pid != psutil.Process().pid and has(p, words)]


def has(process: psutil.Process, words: tuple[str, ...]) -> bool:
    with contextlib.suppress(psutil.Error):
        line = "\n".join(process.cmdline())
        return all(word in line for word in words)
    return False


DYING = """
import os, pathlib, sys, threading
from scipion_cloud.jobs import serve
last, marker, *argv = sys.argv[1:]
last, marker, calls = int(last), pathlib.Path(marker), 0
def count(frame, event, arg):
    global calls
    calls += event == "c_call"
    if calls == last:
        os.kill(os.getpid(), 9)
if not marker.exists():
    marker.touch()
    threading.setprofile(count)
serve.main(argv)
marker.write_text(str(calls))
"""


def test_serve_killed_at_any_instant(tmp_path: Path) -> None:
    """Just before its n-th call into C (the system, SQLite) since it began, for many n."""

    def dying(last: int) -> RemoteBackend:
        words = [sys.executable, "-c", DYING, str(last), str(tmp_path / f"marker{last}"), *SERVE[3:]]
        return RemoteBackend(Channel((*words, str(tmp_path / "area"))), patience=240)

    whole = dying(-1)
    whole.submit(sh("echo -1 >> marks", tmp_path), "-1")
    channel.close_all()
    calls = int((tmp_path / "marker-1").read_text())
    assert calls > 100
    instants = [calls * n // 12 for n in range(1, 12)]
    for n in instants:
        dying(n).submit(sh(f"echo {n} >> marks", tmp_path), f"{n}")
    backend = RemoteBackend(Channel((*SERVE, str(tmp_path / "area"))))
    jobs = [info.id for info in backend.list()]
    assert {status.state for status in wait_for(backend, *jobs)} == {JobState.DONE}
    assert marks(tmp_path) == [-1, *instants]


def test_stopped_serve_is_taken_for_dead(near: RemoteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "SILENCE", wire.BEAT + 2)
    patient = replace(near, patience=240)
    patient.list()
    (serve,) = (p for p in psutil.Process().children() if str(near.channel.argv[-1]) in p.cmdline())
    serve.send_signal(signal.SIGSTOP)
    assert patient.list() == ()
    assert not is_alive(serve.pid)


def test_serve_ends_with_its_client_and_jobs_live_on(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*SERVE, str(tmp_path / "area")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as serve:
        assert serve.stdin is not None
        assert serve.stdout is not None
        spec = wire.encode(sh("until [ -e go ]; do sleep 0.1; done; echo end > mark", tmp_path))
        serve.stdin.write(wire.line({"id": 1, "call": "submit", "args": {"spec": spec, "key": "a"}}))
        serve.stdin.write(b'{"id": 2, "call": "cancel", "args": {"id')  # a connection that broke
        serve.stdin.close()
        assert serve.stdout.read().count(b'"answer"') == 1
        assert serve.wait(60) == 0
    (tmp_path / "go").touch()
    wait_file(tmp_path / "mark")


# --- many at once, and much


def test_requests_overlap(near: RemoteBackend, tmp_path: Path) -> None:
    job = near.submit(replace(sh(SAVING, tmp_path), grace=600), "a")
    wait_file(tmp_path / "ready")
    with ThreadPoolExecutor(8) as pool:
        cancel = pool.submit(near.cancel, [job])
        found = pool.map(near.find, ["a", *(f"{n}" for n in range(200))])
        assert list(found) == [job, *[None] * 200]
        assert not cancel.done()
        (tmp_path / "go").touch()
        cancel.result(240)
    assert near.status([job])[job].state is JobState.CANCELLED


def test_long_messages(login: Login, tmp_path: Path) -> None:
    backend = RemoteBackend(login.channel())
    text = "0123456789abcde\n" * 300_000
    assert backend.find(text) is None
    (tmp_path / "long").write_text(text)
    job = backend.submit(sh("cat long", tmp_path), "a")
    wait_for(backend, job)
    assert backend.logs(job, tail=len(text)).stdout == text


def test_many_in_one_message(near: RemoteBackend, tmp_path: Path) -> None:
    jobs = [(sh(f"echo {n} >> marks", tmp_path), f"{n}") for n in range(20)]
    ids = near.submit_all(jobs)
    assert near.submit_all(jobs) == ids
    wait_for(near, *ids)
    assert marks(tmp_path) == list(range(20))


def test_what_a_login_prints_does_no_harm(tmp_path: Path) -> None:
    script = 'echo "Welcome!"; printf "\\377\\n"; exec "$@"'
    near = RemoteBackend(Channel(("sh", "-c", script, "x", *SERVE, str(tmp_path / "area"))))
    assert near.about()["batch"] == "local"
    assert near.nodes()[0].cpus == 2


def test_another_protocol(tmp_path: Path) -> None:
    backend = RemoteBackend(Channel(("sh", "-c", """echo '{"hello":99}'; cat""")))
    with pytest.raises(JobError, match="speaks protocol 99"):
        backend.list()


def test_a_program_that_speaks_otherwise(tmp_path: Path) -> None:
    for line in ("[]", "{}", "7", '{"id": 1}', "no message"):
        script = f"""echo '{{"hello":{wire.PROTOCOL}}}'; echo '{line}'; cat > /dev/null"""
        with pytest.raises(JobError, match="does not answer: what came was no message"):
            RemoteBackend(Channel(("sh", "-c", script)), patience=1).list()


FORK = """
import os, pickle, sys
backend = pickle.load(sys.stdin.buffer)
backend.list()
if (child := os.fork()) == 0:
    os._exit(len(backend.list()))  # by a connection of its own
assert os.waitpid(child, 0)[1] == 0
assert backend.list() == ()
"""


def test_forked_process_has_a_connection_of_its_own(near: RemoteBackend) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", FORK], input=pickle.dumps(near), timeout=240)
    assert done.returncode == 0
