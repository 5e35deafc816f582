"""The proxy fails as it is told to."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from scipion_cloud.testing.servers.proxy import Proxy, fault_proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """In front of a server that sends back what it gets."""

    def echo(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                pass

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        with fault_proxy("127.0.0.1", listener.getsockname()[1]) as proxy:
            yield proxy
        listener.shutdown(socket.SHUT_RDWR)


def client(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=30)


def back(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def test_bytes_pass_both_ways_and_so_does_the_end(proxy: Proxy) -> None:
    with client(proxy) as one, client(proxy) as other:
        one.sendall(b"x" * 1_000_000)
        other.sendall(b"other")
        assert back(other, 5) == b"other"
        one.shutdown(socket.SHUT_WR)
        assert back(one, 2_000_000) == b"x" * 1_000_000
    assert proxy.accepted == 2
    assert proxy.passed == 2 * 1_000_005


def test_cut(proxy: Proxy) -> None:
    with client(proxy) as one:
        one.sendall(b"x")
        assert back(one, 1) == b"x"
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    with client(proxy) as one:
        one.sendall(b"x")
        assert back(one, 1) == b"x"


def test_stall_and_heal(proxy: Proxy) -> None:
    with client(proxy) as one:
        one.sendall(b"x")
        assert back(one, 1) == b"x"
        proxy.stall()
        one.sendall(b"held back")
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            one.recv(1)
        with client(proxy) as new:
            new.sendall(b"new")
            new.settimeout(0.3)
            with pytest.raises(TimeoutError):
                new.recv(1)
            proxy.heal()
            for connection, sent in ((one, b"held back"), (new, b"new")):
                connection.settimeout(30)
                assert back(connection, len(sent)) == sent


def test_refuse(proxy: Proxy) -> None:
    with client(proxy) as old:
        old.sendall(b"x")
        assert back(old, 1) == b"x"
        proxy.refuse()
        with pytest.raises(ConnectionResetError), client(proxy) as new:
            new.recv(1)
        old.sendall(b"y")
        assert back(old, 1) == b"y"


def test_cut_after_some_bytes(proxy: Proxy) -> None:
    def send_until_cut() -> None:
        for _ in range(10_000):
            one.sendall(b"x" * 1000)
            time.sleep(0.001)

    with client(proxy) as one:
        proxy.cut_after(150_000)
        with pytest.raises(ConnectionError):
            send_until_cut()
    assert proxy.passed == 150_000


def test_latency_and_rate(proxy: Proxy) -> None:
    with client(proxy) as one:
        proxy.slow(latency=0.1)
        start = time.monotonic()
        one.sendall(b"x")
        assert back(one, 1) == b"x"
        assert time.monotonic() - start >= 0.2
        proxy.slow(rate=100_000)
        start = time.monotonic()
        one.sendall(b"x" * 50_000)
        assert back(one, 50_000) == b"x" * 50_000
        assert time.monotonic() - start >= 0.4
