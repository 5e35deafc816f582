"""SFTP packets against a server that is a script: what real ones do rarely, or only when they are broken."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from scipion_cloud.storage.sftp_files import write_file
from scipion_cloud.storage.sftp_listing import list_folders
from scipion_cloud.storage.sftp_names import STATVFS, is_full
from scipion_cloud.storage.sftp_protocol import (
    Answer,
    Ask,
    Code,
    ConnectionDead,
    Protocol,
    SftpStatus,
    string,
    times,
)

Answering = Callable[[int, bytes], bytes]  # type and content of a request -> the reply's type and content


def status(code: int, *text: bytes) -> bytes:
    return bytes([Answer.STATUS]) + struct.pack(">I", code) + b"".join(map(string, text))


def serve(sock: socket.socket, extensions: dict[bytes, bytes], answer: Answering) -> None:
    with suppress(BrokenPipeError), sock, sock.makefile("rb") as incoming:  # the client may go first
        incoming.read(9)
        body = struct.pack(">BI", Answer.VERSION, 3)
        body += b"".join(string(name) + string(value) for name, value in extensions.items())
        sock.sendall(struct.pack(">I", len(body)) + body)
        while len(head := incoming.read(9)) == 9:
            length, kind, number = struct.unpack(">IBI", head)
            reply = answer(kind, incoming.read(length - 5))
            if not reply:
                return
            packet = struct.pack(">IBI", len(reply) + 4, reply[0], number) + reply[1:]
            sock.sendall(packet)


@contextmanager
def talk(answer: Answering, extensions: dict[bytes, bytes] | None = None) -> Iterator[Protocol]:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs, extensions or {}, answer))
    thread.start()
    with ours:
        protocol = Protocol(ours)
        yield protocol
        protocol._incoming.close()
        ours.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_refusal_without_text() -> None:
    with talk(lambda *_: status(Code.FAILURE)) as sftp, pytest.raises(SftpStatus, match="failure") as caught:
        sftp.ask(Ask.REMOVE, string(b"x"))
    assert caught.value.code == Code.FAILURE


def test_replies_that_nobody_waits_for_are_dropped() -> None:
    def answer(kind: int, content: bytes) -> bytes:
        return status(Code.OK) if content.endswith(b"good") else status(Code.FAILURE, b"no", b"en")

    with talk(answer) as sftp:
        sftp.forget(sftp.send(Ask.REMOVE, string(b"bad")))
        late = sftp.send(Ask.REMOVE, string(b"late good"))
        sftp.ask(Ask.REMOVE, string(b"good"))
        sftp.reply(late)
        with pytest.raises(SftpStatus, match="no"):
            sftp.settle([sftp.send(Ask.REMOVE, string(name)) for name in (b"good", b"bad", b"good")])
        assert not sftp._replies
        assert not sftp._forgotten


def test_an_end_in_the_midst_of_a_reply() -> None:
    with talk(lambda *_: b"") as sftp, pytest.raises(ConnectionDead, match="ended"):
        sftp.ask(Ask.REMOVE, string(b"x"))


@pytest.mark.parametrize(
    "greeting", [b"Welcome to the cluster!\n" * 10, b"", b"\0\0\0\5\2", struct.pack(">IBI", 0xFFFFFFFF, 2, 3)]
)
def test_a_server_that_says_something_else(greeting: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(greeting)
        with pytest.raises(ConnectionDead):
            Protocol(ours)


@pytest.mark.parametrize(
    ("free", "files", "free_files", "full"),
    [(0, 100, 50, True), (1000, 100, 0, True), (1000, 0, 0, False), (1000, 100, 50, False)],
)
def test_a_full_disk_is_told_from_other_failures(free: int, files: int, free_files: int, full: bool) -> None:
    numbers = (4096, 4096, 5000, free, free, files, free_files, free_files, 1, 0, 255)

    def answer(kind: int, content: bytes) -> bytes:
        assert kind == Ask.EXTENDED
        assert content == string(STATVFS) + string(b"/data")
        return bytes([Answer.EXTENDED]) + struct.pack(">11Q", *numbers)

    with talk(answer, {STATVFS: b"2"}) as sftp:
        assert is_full(sftp, b"/data", 10) is full
    with talk(answer) as sftp:
        assert not is_full(sftp, b"/data", 10)


def test_a_write_that_is_refused_midway_closes_the_file() -> None:
    asked: list[int] = []

    def answer(kind: int, content: bytes) -> bytes:
        asked.append(kind)
        if kind == Ask.OPEN:
            return bytes([Answer.HANDLE]) + string(b"handle")
        return status(Code.FAILURE if asked.count(Ask.WRITE) == 3 and kind == Ask.WRITE else Code.OK)

    with talk(answer) as sftp, pytest.raises(SftpStatus):
        write_file(sftp, b"x", bytes(300_000), 300_000, None)
    assert asked == [Ask.OPEN, *[Ask.WRITE] * 10, Ask.CLOSE]


def test_a_folder_that_may_not_be_listed_is_named() -> None:
    def answer(kind: int, content: bytes) -> bytes:
        if kind == Ask.LSTAT:
            return bytes([Answer.ATTRS]) + struct.pack(">II", 4, 0o040755)
        if kind == Ask.OPENDIR and content.endswith(b"secret"):
            return status(Code.PERMISSION_DENIED)
        if kind == Ask.OPENDIR:
            return bytes([Answer.HANDLE]) + string(b"handle")
        return status(Code.EOF if kind == Ask.READDIR else Code.OK)

    with talk(answer) as sftp:
        with pytest.raises(SftpStatus) as caught:
            list_folders(sftp, [b"open", b"secret", b"other"])
        assert caught.value.path == b"secret"
        assert list_folders(sftp, [b"open", b"other"]) == [[], []]


def test_times_are_held_within_what_can_be_told() -> None:
    assert struct.unpack(">III", times(-5)) == (8, 0, 0)
    assert struct.unpack(">III", times(2**40)) == (8, 2**32 - 1, 2**32 - 1)
