"""Disks that fill up at home and at a site: it is told where, tried on, and ends well once there is room."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from broker_site import near_site, parcel, running

from scipion_cloud.broker import placing
from scipion_cloud.broker.parcel import Parcel
from scipion_cloud.config import Config
from scipion_cloud.errors import TransferError
from scipion_cloud.jobs import JobState
from scipion_cloud.testing.disks import full, small_disk

MB = 1_000_000
HELD = "until [ -e '{}/go' ]; do sleep 0.1; done; mkdir -p out/deep; cp input out/deep/copy; echo end > out/a"


if os.geteuid() == 0:  # only root may mount

    def test_results_wait_for_room_in_the_project(tmp_path: Path) -> None:
        config = Config(home=tmp_path / "home")
        with (
            small_disk(tmp_path / "disk", 24) as disk,
            near_site(config, tmp_path / "area"),
            running(config) as run,
        ):
            root = disk / "p"
            root.mkdir()
            content = os.urandom(5 * MB)
            (root / "input").write_bytes(content)
            spec = parcel(root, HELD.format(tmp_path), "input", site="near")
            job = run.backend.submit(spec, "job")
            run.until(job, lambda status: status.state is JobState.RUNNING)
            with full(disk):
                (tmp_path / "go").touch()
                status = run.until(job, lambda status: "Tried again since" in status.reason)
                assert "The disk here is full" in status.reason
                assert not (root / "out" / "a").exists()
            assert run.end(job).state is JobState.DONE
            assert (root / "out" / "deep" / "copy").read_bytes() == content
            assert not list(root.glob(".scipion-cloud-*"))

    def test_inputs_wait_for_room_at_the_site(tmp_path: Path) -> None:
        config = Config(home=tmp_path / "home")
        with (
            small_disk(tmp_path / "area", 24) as area,
            near_site(config, area),
            running(config) as run,
        ):
            root = tmp_path / "p"
            root.mkdir()
            content = os.urandom(10 * MB)
            (root / "input").write_bytes(content)
            (tmp_path / "go").touch()
            with full(area):
                spec = parcel(root, HELD.format(tmp_path), "input", site="near")
                job = run.backend.submit(spec, "job")
                status = run.until(job, lambda status: "Tried again since" in status.reason)
                assert "The disk at Near by is full" in status.reason
            assert run.end(job).state is JobState.DONE
            assert (root / "out" / "deep" / "copy").read_bytes() == content

    def test_a_home_without_room_loses_nothing(tmp_path: Path) -> None:
        with small_disk(tmp_path / "home", 24) as disk:
            config = Config(home=disk / "home")
            with near_site(config, tmp_path / "area"), running(config) as run:
                root = tmp_path / "p"
                root.mkdir()
                (root / "input").write_bytes(b"x" * MB)
                spec = parcel(root, HELD.format(tmp_path), "input", site="near")
                job = run.backend.submit(spec, "job")
                run.until(job, lambda status: status.state is JobState.RUNNING)
                with full(disk):
                    (tmp_path / "go").touch()
                    there = next((tmp_path / "area" / "projects").iterdir())
                    run.until(job, lambda _: (there / "out" / "a").exists())
                    time.sleep(5)  # the broker meets it in the middle of its work
                assert run.end(job).state is JobState.DONE
                assert (root / "out" / "deep" / "copy").stat().st_size == MB

    def test_a_torn_database_is_mended_once_there_is_room(tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", 24) as disk:
            made = Parcel(disk, "run", needs=())
            arrived = placing.arrivals(made, 1)
            arrived.mkdir()
            program = (
                "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                "db.execute('PRAGMA journal_mode = WAL'); db.execute('CREATE TABLE t (text)')\n"
                "db.executemany('INSERT INTO t VALUES (?)', [('x' * 3000,)] * 500); os.kill(os.getpid(), 9)"
            )
            subprocess.run([sys.executable, "-c", program, arrived / "a.sqlite"], check=False)
            assert (arrived / "a.sqlite-wal").stat().st_size > MB
            with full(disk), pytest.raises(TransferError, match=r"cannot be put into .*full"):
                placing.place(arrived, made, {"/there": disk})
            placing.place(arrived, made, {"/there": disk})
            with closing(sqlite3.connect(disk / "run" / "a.sqlite")) as db:
                assert db.execute("SELECT count(*) FROM t").fetchone() == (500,)
            assert [p.name for p in (disk / "run").iterdir()] == ["a.sqlite"]
