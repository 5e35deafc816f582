"""Requests to a `serve` program behind any command: `ssh ... python site.pyz serve`, or one here.

There is one connection a channel in each process, shared by its threads. It is made on first use, anew when
it breaks, and not used by a process that was forked off. Whatever breaks, a request is sent again until its
patience ends: all of them may be repeated. The far end says something every few seconds, so that a silent one
is taken for dead. Standard library only.
"""

import atexit
import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from scipion_cloud.errors import JobError
from scipion_cloud.jobs import wire

SILENCE = 4 * wire.BEAT  # seconds without a sign of life after which a connection is given up
NOISE = 65536  # bytes that a login may print before the program there begins
_HOPELESS = re.compile(rb"Permission denied|Host key verification failed|HOST IDENTIFICATION HAS CHANGED")
_REFUSED = (2, 126, 127)  # exit codes of a program that would say the same the next time, or is not there


@dataclass(frozen=True)
class Channel:
    """The way to a `serve` program. A picklable value."""

    argv: tuple[str, ...]  # the command that starts it, or leads to it
    name: str = "The site"  # in messages

    def ask(self, call: str, args: dict[str, Any], patience: float, limit: float | None) -> Any:
        """The answer to a request.

        Each attempt may take `limit` seconds, or any time if None as long as the far end shows that it lives;
        attempts are made for `patience` seconds from the first that fails. Raises JobError when it does not
        answer, else what it raised.
        """
        end = None if limit is None else time.monotonic() + patience
        pause = 0.1
        while True:
            try:
                return _connection(self).ask(call, args, limit)
            except _Broken as e:
                now = time.monotonic()
                end = end or now + patience
                if e.hopeless or now + pause > end:
                    raise JobError(f"{self.name} does not answer: {e}. What runs there goes on.") from e
            time.sleep(pause)
            pause = min(2 * pause, 3.0)


class _Broken(Exception):
    def __init__(self, reason: str, hopeless: bool = False) -> None:
        super().__init__(reason)
        self.hopeless = hopeless  # the next attempt will end as this one


class _Connection:
    """A running command. Raises _Broken when it cannot be started."""

    def __init__(self, argv: tuple[str, ...]) -> None:
        self._said = os.memfd_create("said")
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(SILENCE)
        try:
            self._process = subprocess.Popen(
                argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._said, start_new_session=True
            )
        except OSError as e:
            os.close(self._said)
            self._socket.close()
            raise _Broken(f"{argv[0]} cannot be started ({e.strerror})", hopeless=True) from e
        finally:
            theirs.close()
        self._turn = threading.Lock()  # for what follows, and for writing
        self._fault: _Broken | None = None
        self._waiting: dict[int, Future[Any]] = {}
        self._last = 0
        threading.Thread(target=self._read, name="jobs-channel", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """False once it has broken."""
        return self._fault is None

    def ask(self, call: str, args: dict[str, Any], limit: float | None) -> Any:
        """Send a request and wait for its answer."""
        answer: Future[Any] = Future()
        with self._turn:
            if self._fault:
                raise self._fault
            self._last += 1
            self._waiting[self._last] = answer
            try:
                self._socket.sendall(wire.line({"id": self._last, "call": call, "args": args}))
            except OSError:
                self._hang_up()  # the reader knows why
        try:
            message = answer.result(limit)
        except TimeoutError:
            self.close()
            raise _Broken(f"no answer within {limit:g} s") from None
        if "error" in message:
            raise wire.error_of(message["error"])
        return message["answer"]

    def close(self) -> None:
        """Use it no more. The other side ends when it has done what was asked."""
        self._fault = self._fault or _Broken("the connection was given up")
        self._hang_up()

    def end(self, seconds: float) -> None:
        """Wait for the command's end, and make it one."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """In a forked process: it is the other's."""
        os.close(self._socket.detach())

    def _read(self) -> None:
        reason, greeted = "", False
        try:
            with self._socket.makefile("rb") as stream:
                greeted = _greeting(stream)
                for text in stream if greeted else ():
                    if text.strip():
                        message = json.loads(text)
                        if not {"answer", "error"} & message.keys():
                            raise LookupError
                        if answer := self._waiting.pop(message["id"], None):
                            answer.set_result(message)
        except TimeoutError:
            reason = f"nothing was heard for {SILENCE:g} s"
        except OSError as e:
            reason = str(e)
        except (ValueError, LookupError, TypeError, AttributeError):
            reason = "what came was no message"  # a line that broke, or another program's
        except _Broken as e:
            self._break(e)
            return
        self._break(self._cause(reason, greeted))

    def _cause(self, reason: str, greeted: bool) -> _Broken:
        """Why it ended, from the words and the exit code of the command."""
        code = None
        if not reason:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(5)
        said = os.pread(self._said, 4096, max(0, os.fstat(self._said).st_size - 4096))
        last = said.decode(errors="replace").strip().rpartition("\n")[2].strip()
        hopeless = not greeted and (code in _REFUSED or bool(_HOPELESS.search(said)))
        return _Broken(last or reason or f"the connection ended with code {code}", hopeless)

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _break(self, fault: _Broken) -> None:
        self._hang_up()
        with self._turn:
            self._fault = fault
            waiting, self._waiting = self._waiting, {}
        self._process.kill()  # it has nothing to lose: what was asked is answered, or asked again
        self._process.wait()
        self._socket.close()
        os.close(self._said)
        for answer in waiting.values():
            answer.set_exception(fault)


def _greeting(stream: Any) -> bool:
    """Read up to the program's first word, past what a login prints. False if it does not come.

    Raises _Broken if the program there speaks otherwise.
    """
    left = NOISE
    while left > 0 and (text := stream.readline(left)):
        left -= len(text)
        if text.startswith(b'{"hello":'):
            protocol = json.loads(text)["hello"]
            if protocol != wire.PROTOCOL:
                raise _Broken(
                    f"its scipion-cloud-site.pyz speaks protocol {protocol}, and this service "
                    f"{wire.PROTOCOL}; make both of one version",
                    hopeless=True,
                )
            return True
    return False


class _Slot:
    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.connection: _Connection | None = None


_slots: dict[Channel, _Slot] = {}
_inherited: list[dict[Channel, _Slot]] = []  # kept, so that nothing there is ended by its destructor


def _connection(channel: Channel) -> _Connection:
    slot = _slots.setdefault(channel, _Slot())  # one step, also between threads
    with slot.turn:
        if slot.connection is None or not slot.connection.is_alive:
            slot.connection = _Connection(channel.argv)
        return slot.connection


def _after_fork() -> None:
    global _slots  # the locks in there may be held by threads that do not exist here
    _inherited.append(_slots)
    for slot in _slots.values():
        if slot.connection:
            slot.connection.forget()
    _slots = {}


def close_all() -> None:
    """End this process's connections; at its exit this happens by itself."""
    connections = [slot.connection for slot in _slots.values() if slot.connection]
    for connection in connections:
        connection.close()
    for connection in connections:
        connection.end(2.0)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(close_all)
