"""A few connections for many threads."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import error as Nonsense  # noqa: N812 - what it means here

from scipion_cloud.errors import StorageError, StorageTransient
from scipion_cloud.storage.sftp_protocol import Code, ConnectionDead, SftpStatus
from scipion_cloud.storage.sftp_ssh import Connection

LIMIT = 16  # connections
FEW = 4  # connections that are made as soon as they are wanted: a server syncs files of several at once
PATIENCE = 0.03  # s that a thread waits for one of them before it makes another: signing in takes longer


class Pool:
    """Connections, each used by one thread at a time.

    They are made one after another, and more of them only where threads wait long: on a server near by few
    are enough, on one far away the threads' requests have to be under way at the same time.
    """

    def __init__(self, connect: Callable[[], Connection], limit: int = LIMIT) -> None:
        self._connect = connect
        self._limit = limit
        self._room = limit  # less where the server turned out to allow fewer
        self._changed = threading.Condition()
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []  # the one that was used last is used next
        self._connecting = False
        self._particular = 0  # threads that wait for a certain one
        self._failures = 0
        self._failure: StorageError | None = None
        self._closed = False

    @contextmanager
    def use(self, this: Connection | None = None) -> Iterator[Connection]:
        """Have a connection to oneself: `this`, if it is still good, or any.

        A connection that breaks is dropped, and StorageTransient raised. SftpStatus passes through.
        """
        connection = self._take(this)
        good = broken = False
        try:
            connection.tidy()
            yield connection
            good = True
        except (StorageError, OSError):
            good = True  # of the file that is copied, at either end; the connection's are ConnectionDead
            raise
        except SftpStatus as e:
            broken = e.code in (Code.NO_CONNECTION, Code.CONNECTION_LOST)
            good = not broken
            if broken:
                raise StorageTransient(f"The connection to the SFTP server was lost: {e}") from e
            raise
        except (ConnectionDead, Nonsense) as e:
            broken = True
            why = connection.why() or str(e)
            raise StorageTransient(f"The connection to the SFTP server was lost: {why}") from e
        finally:
            self._give_back(connection, good, broken)

    def close(self) -> None:
        """End all connections; those in use end with their use."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._all.difference_update(idle)
            self._changed.notify_all()
        for connection in idle:
            connection.close()

    def _take(self, this: Connection | None) -> Connection:
        while True:
            connection = self._await(this)
            if connection is None:
                connection = self._open()
            if connection is not None:
                return connection

    def _await(self, this: Connection | None) -> Connection | None:
        """A connection that is free, or None for the one who is to make a new one."""
        with self._changed:
            failures = self._failures
            patient_until = time.monotonic() + PATIENCE
            while True:
                if self._closed:
                    raise StorageError("This storage is closed.")
                if this is not None and this not in self._all:
                    raise StorageTransient("The connection to the SFTP server was lost.")
                if self._failure and self._failures != failures and not self._all:
                    # one tries for all who wait
                    raise type(self._failure)(*self._failure.args)
                if this in self._idle:
                    self._idle.remove(this)
                    return this
                if this is None and self._idle:
                    connection = self._idle.pop()
                    if connection.alive:
                        return connection
                    self._all.discard(connection)
                    connection.close()
                elif this is not None:
                    self._particular += 1
                    self._changed.wait()
                    self._particular -= 1
                elif self._connecting or len(self._all) >= self._room:
                    self._changed.wait()
                elif len(self._all) < FEW or time.monotonic() >= patient_until:
                    self._connecting = True
                    return None
                else:
                    self._changed.wait(max(0.0, patient_until - time.monotonic()))

    def _open(self) -> Connection | None:
        """One more connection, or None where the server allows no more and there are others.

        One at a time: servers refuse crowds that sign in at once.
        """
        connection, failure = None, None
        try:
            connection = self._connect()
        except StorageError as e:
            failure = e
        finally:
            with self._changed:
                self._connecting = False
                if connection:
                    self._all.add(connection)
                else:
                    self._failures += 1
                    self._failure = failure
                    self._room = len(self._all) or self._limit
                enough = bool(self._all)
                self._changed.notify_all()
        if failure and not enough:
            raise failure
        return connection

    def _give_back(self, connection: Connection, good: bool, broken: bool) -> None:
        with self._changed:
            ended = []
            if good and not self._closed:
                self._idle.append(connection)
            else:
                ended.append(connection)
            if broken:  # where one broke the others may have too: do not try each of them
                ended += self._idle
                self._idle = []
                self._room = self._limit
            self._all.difference_update(ended)
            if ended or self._particular:
                self._changed.notify_all()
            else:  # to wake all for one connection would cost more than the request
                self._changed.notify()
        for one in ended:
            one.close()
