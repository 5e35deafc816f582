"""What is known of sites: looks at real queues, drained flags, the speed of links."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scipion_cloud.broker.rank import Needs, rank
from scipion_cloud.config import Config
from scipion_cloud.controller.sites import Sites
from scipion_cloud.errors import ConfigError
from scipion_cloud.jobs import JobSpec, JobState
from scipion_cloud.sites import looking, reach, state
from scipion_cloud.sites.reading import read_sites
from scipion_cloud.testing.job_backend import wait_for, wait_running


@pytest.fixture
def config(tmp_path: Path) -> Config:
    home = tmp_path / "home"
    home.mkdir()
    (home / "sites.toml").write_text(
        f'[near]\narea = "{tmp_path}/near"\nsoftware = ["relion"]\nmax_cpus = 2\n'
        f'[far]\nhost = "127.0.0.1"\nport = 1\narea = "/x"\nkey_file = "key"\nknown_hosts_file = "known"\n'
    )
    (home / "key").touch(0o600)
    (home / "known").touch()
    return Config(home=home, cpus=3, memory_gb=2)


def test_a_look_at_a_site_and_at_home(config: Config, tmp_path: Path) -> None:
    near = read_sites(config)["near"]
    backend = reach.backend(near, config)
    spec = JobSpec(("true",), tmp_path, name="first", memory_gb=0.1)
    wait_for(backend, backend.submit(spec, "a"))
    long = JobSpec(("sleep", "600"), tmp_path, name="long", cpus=2, memory_gb=0.1)
    running = backend.submit(long, "b")
    backend.submit(long, "c")
    wait_running(backend, running)
    for site in ("here", "near"):
        looking.look(read_sites(config)[site], config)
    here, now, far = state.seen_sites(config)
    backend.cancel([job.id for job in backend.list()])
    assert (now.state, now.running, now.queued) == ("ready", 1, 1)
    assert [(node.cpus, node.cpus_used, node.state) for node in now.nodes] == [(2, 2, "full")]
    assert {job.name: job.status.state for job in now.jobs}["first"] is JobState.DONE
    assert now.typical < looking.TYPICAL
    assert now.free_gb is not None
    assert now.seen is not None
    assert (datetime.now(UTC) - now.seen).total_seconds() < 600
    assert (here.state, here.cpus, here.running) == ("ready", 3, 0)
    assert [flavour.cpus for flavour in here.flavours] == [3]
    assert far.state == "unknown"
    offers = {offer.site: offer for offer in rank((here, now, far), Needs(packages=("relion",)))}
    assert offers["here"].possible
    assert offers["near"].possible
    assert offers["near"].wait > 0
    assert offers["far"].reasons == ("has not been reached yet", "has no RELION")


def test_a_site_that_does_not_answer_keeps_what_was_seen(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "PATIENCE", 0.1)
    far = read_sites(config)["far"]
    looking.look(far, config)
    first = state.seen_site(far, config)
    looking.look(far, config)
    now = state.seen_site(far, config)
    assert now.state == "unreachable"
    assert "Connection refused" in now.unreachable
    assert "What runs there" not in now.unreachable
    assert now.unreachable_since == first.unreachable_since is not None
    (offer,) = rank([now], Needs())
    assert not offer.possible
    assert offer.reasons[0].startswith("cannot be reached since")


def test_a_drained_site_is_refused_until_it_is_resumed(config: Config) -> None:
    near = read_sites(config)["near"]
    looking.look(near, config)
    state.drain(config, near, "new disks", "op@example.org")
    since = state.seen_site(near, config).drained_since
    state.drain(config, near, "new disks until Friday")
    now = state.seen_site(near, config)
    assert (now.state, now.drained, now.drained_since) == ("drained", "new disks until Friday", since)
    looking.look(near, config)
    assert state.seen_site(near, config).state == "drained"
    (offer,) = rank([now], Needs())
    assert offer.reasons == ("takes no new jobs: new disks until Friday",)
    state.resume(config, near)
    assert state.seen_site(near, config).state == "ready"


def test_the_speed_of_a_link_is_learnt_from_what_it_carried(config: Config) -> None:
    near = read_sites(config)["near"]
    state.note_transfer(config, "near", 100, 0.001)  # too little to tell
    assert state.seen_site(near, config).bytes_per_second is None
    state.note_transfer(config, "near", 100_000_000, 10)
    assert state.seen_site(near, config).bytes_per_second == 10e6
    state.note_transfer(config, "near", 100_000_000, 5)
    assert state.seen_site(near, config).bytes_per_second == pytest.approx(13e6)
    state.note_use(config, "near", 5_000_000_000)
    assert state.seen_site(near, config).used_gb == 5


def test_changes_at_one_time_are_all_kept(config: Config) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            pool.submit(state.change, config, "near", **{f"part{number}": number})
    assert len(state.read(config, "near")) == 40
    assert [p.name for p in (config.home / "sites").iterdir() if p.suffix == ".new"] == []


def test_a_file_that_makes_no_sense_is_written_anew(config: Config) -> None:
    near = read_sites(config)["near"]
    state.drain(config, near)
    (config.home / "sites" / "near.json").write_text("{")
    assert state.seen_site(near, config).state == "unknown"
    state.drain(config, near)
    assert json.loads((config.home / "sites" / "near.json").read_text())["drained"]["why"]


def test_what_another_version_has_seen_is_left_out(config: Config) -> None:
    near = read_sites(config)["near"]
    looking.look(near, config)
    kept = state.read(config, "near")["seen"]
    assert len(state.seen_site(near, config).nodes) == 1
    state.change(config, "near", seen={**kept, "nodes": [{**kept["nodes"][0], "colour": "red"}]})
    now = state.seen_site(near, config)
    assert (now.nodes, now.state) == ((), "ready")


def test_the_controller_waits_for_no_site(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "PATIENCE", 5)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections, and never says a word
        port = mute.getsockname()[1]
        file = config.home / "sites.toml"
        file.write_text(file.read_text().replace("port = 1\n", f"port = {port}\n"))
        sites = Sites(config)
        wait_until_seen(sites, config, {"here": "ready", "near": "ready"})
        assert state.seen_site(read_sites(config)["far"], config).state != "ready"
    wait_until_seen(sites, config, {"here": "ready", "near": "ready", "far": "unreachable"})
    file.write_text("[far]\nbatch = 'pbs'\n")
    with pytest.raises(ConfigError, match=r"\[far\] batch"):
        Sites(config).refresh()


def wait_until_seen(sites: Sites, config: Config, states: dict[str, str]) -> None:
    deadline = time.monotonic() + 240
    while not states.items() <= (found := {now.name: now.state for now in state.seen_sites(config)}).items():
        assert time.monotonic() < deadline, found
        sites.refresh()
        time.sleep(0.1)
