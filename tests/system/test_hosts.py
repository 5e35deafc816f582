"""Hosts in network namespaces, as tests use them. As root, as in CI."""

import socket
import subprocess
from pathlib import Path

import pytest

from scipion_cloud.cluster.hosts import Network
from scipion_cloud.errors import SetupError
from scipion_cloud.testing.network import TestHost, lan

ECHO = """
import socket
server = socket.create_server(("", 7000))
while True:
    client, _ = server.accept()
    with client:
        client.sendall(socket.gethostname().encode() + b" " + client.getpeername()[0].encode())
"""
ASK = "import socket, sys; print(socket.create_connection((sys.argv[1], 7000), 2).recv(100).decode())"


def ask(host: TestHost, address: str) -> str:
    """What the server at an address says to a host."""
    return host.run("python3", "-c", ASK, address).strip()


def test_hosts_have_names_addresses_and_cables(tmp_path: Path) -> None:
    with lan(tmp_path) as net:
        server = net.host("server", "python3", "-c", ECHO)
        client = net.host("client")
        assert client.run("hostname").strip() == "client"
        assert client.run("getent", "hosts", "client").split() == [client.address, "client"]
        _wait_listening(client, server)
        assert ask(client, server.address) == f"server {client.address}"
        with socket.create_connection((server.address, 7000), 60) as connection:  # from this machine too
            assert connection.recv(100).decode() == f"server {net.address}"
        server.cut()
        with pytest.raises(subprocess.CalledProcessError):
            ask(client, server.address)
        server.mend()
        _wait_listening(client, server)
        assert "PID" in client.run("ps", "ax")
        assert "server.accept" not in client.run("ps", "ax")  # its processes are its own
        server.kill()
        with pytest.raises(SetupError, match="has ended"):
            server.run("true")
        bridge = net.network.bridge
        assert Path("/sys/class/net", bridge).exists()
    assert not Path("/sys/class/net", bridge).exists()
    assert not list(Path("/sys/class/net").glob(f"{bridge}-*"))


def test_the_end_of_a_program_is_the_end_of_its_host(tmp_path: Path) -> None:
    with lan(tmp_path) as net:
        host = net.host("short", "sh", "-c", "setsid sleep 1000 & echo bye")
        assert host.process.wait(120) == 0
        assert host.log.read_text() == "bye\n"


def test_a_network_is_made_and_removed_again_and_again(tmp_path: Path) -> None:
    with lan(tmp_path) as net:
        other = Network(net.network.bridge, net.network.subnet)
        other.ensure()
        other.remove()
        other.remove()
        other.ensure()
        assert net.host("later").run("hostname") == "later\n"


def _wait_listening(client: TestHost, server: TestHost) -> None:
    for _ in range(60):
        try:
            ask(client, server.address)
        except subprocess.CalledProcessError:
            continue
        return
    raise AssertionError(f"nobody listens: {server.log.read_text()}")
