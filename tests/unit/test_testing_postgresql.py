"""The PostgreSQL server that the tests borrow."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from scipion_cloud.testing.postgresql import postgresql

pytestmark = pytest.mark.postgresql


def servers(folder: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter() if folder in " ".join(_command(p))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def socket_folder(url: str) -> str:
    return url.partition("host=")[2].partition("&")[0]


def test_a_database_for_a_while_without_a_port() -> None:
    with postgresql() as url, psycopg.connect(url, autocommit=True) as connection:
        folder = socket_folder(url)
        connection.execute("CREATE TABLE movies (name text)")
        connection.execute("INSERT INTO movies VALUES ('Größe 5 Å')")
        assert connection.execute("SELECT name FROM movies").fetchone() == ("Größe 5 Å",)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        server = psutil.Process(pid).parent()
        assert server
        assert server.uids().real == (os.geteuid() or server.uids().real) != 0
        assert [c for c in server.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    assert servers(folder) == []
    assert not Path(folder).exists()


def test_the_server_ends_with_a_test_that_is_killed() -> None:
    program = "from scipion_cloud.testing.postgresql import postgresql\n"
    program += "with postgresql() as url: print(url, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    folder = socket_folder(process.stdout.readline())
    assert servers(folder)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 60
    while servers(folder):
        assert time.monotonic() < deadline, "the server outlived its test"
        time.sleep(0.05)
    subprocess.run(["rm", "-rf", "--", folder], check=True)
