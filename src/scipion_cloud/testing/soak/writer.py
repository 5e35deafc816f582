"""People at work: a process that changes a working copy all the time, and keeps a ledger of it.

python -m scipion_cloud.testing.soak.writer FOLDER LEDGER SEED: words on its standard input ask for

pause    nothing is being changed any more; answered with `paused`, as the next two, which are for a pause
touch    one change that takes no room
large    a large file
go       work
whole    the large files have arrived: work on them too
quit     so does the end of the input
"""

import os
import random
import select
import shutil
import sqlite3
import stat as modes
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from scipion_cloud.testing.soak import database
from scipion_cloud.testing.soak.ledger import Change, Ledger, State, content

DATABASES = {b"project.sqlite": "wal", b"Runs/steps.sqlite": "delete"}
# judged by their rows; SQLite makes the other files as it needs them
APART = frozenset(path + suffix for path in DATABASES for suffix in (b"", b"-wal", b"-shm", b"-journal"))
LARGE = b"large"  # only files that arrive after people have begun to work are in there
LARGE_SIZE = 4_500_000  # bytes
NAMES = (
    b"plain.txt",
    b"line\nbreak",
    b'it\'s a "quote"',
    b"\xff\xfe not utf-8 \x80",
    b"-rf *?[x]",
    "nfc-\u00e9".encode(),
    "nfd-e\u0301".encode(),
    b"%2Fpercent%00",
    b"back\\slash",
    b"ends with dot.",
    b" space ",
    b"n" * 200,
)
FEW, MANY = 50, 110  # files
PAUSE = 0.06  # s between two changes, at most


class Writer:
    """Changes one folder. Everything is random, of one seed."""

    def __init__(self, root: Path, ledger: Path, seed: str) -> None:
        self.root = root
        self.ledger = Ledger(ledger)
        self.random = random.Random(seed)  # noqa: S311 - to be had again
        self.whole = False  # the large files are here
        self._count = 0
        self._seed = f"{seed}-{time.time_ns()}"
        self._databases: dict[bytes, sqlite3.Connection] = {}
        for path in self.ledger.torn:  # a writer was killed: what stands there is what it is
            with self.change({path: self.found(path)}):
                pass

    # one change

    @contextmanager
    def change(self, change: Change) -> Iterator[None]:
        """Note a change around the act itself."""
        self.ledger.begin(change)
        yield
        self.ledger.end()

    def found(self, path: bytes) -> State | None:
        """What stands under a name."""
        full = self.full(path)
        try:
            stat = full.lstat()
        except OSError:
            return None
        mode = modes.S_IMODE(stat.st_mode)
        if modes.S_ISDIR(stat.st_mode):
            return State("d", mode)
        if modes.S_ISLNK(stat.st_mode):
            return State("l", target=os.fsencode(full.readlink()).decode("latin-1"))
        data = full.read_bytes()
        return State("f", mode, len(data), blake3(data).hexdigest(), inode=str(stat.st_ino))

    def full(self, path: bytes) -> Path:
        """Where it is."""
        return self.root / os.fsdecode(path)

    def token(self) -> str:
        """Never the same."""
        self._count += 1
        return f"{self._seed}-{self._count}"

    def names(self, kind: str) -> list[bytes]:
        """What there is of a kind, but for the large files."""
        names = self.ledger.names.items()
        return sorted(p for p, s in names if s and s.kind == kind and p.split(b"/", 1)[0] != LARGE)

    def folder(self) -> bytes:
        """Some folder, with a slash, or the top."""
        return self.random.choice([b"", *(p + b"/" for p in self.names("d"))])

    def fresh(self) -> bytes:
        """A name that nothing has."""
        while True:
            name = self.random.choice(NAMES)[:200] + b"%d" % self.random.randrange(1000)
            path = self.folder() + name
            if self.ledger.names.get(path) is None and len(path) < 900:
                return path

    def twins(self, path: bytes, state: State) -> Change:
        """A state for all names of a file."""
        inode = (self.ledger.names[path] or state).inode
        same = [p for p, s in self.ledger.names.items() if s and s.kind == "f" and s.inode == inode]
        return {p: replace(state, inode=inode) for p in {path, *same}}

    def size(self) -> int:
        """Mostly small."""
        return int(
            self.random.choice([0, 1, 300, 5_000, 5_000, 70_000, 70_000, 400_000]) * self.random.random() * 2
        )

    # what people do

    def put(self, path: bytes, size: int) -> None:
        """A new file, or all of an old one anew, little by little."""
        old = self.ledger.names.get(path)
        token = self.token()
        data = content(token, size)
        state = State(
            "f", old.mode if old else 0o644, size, blake3(data).hexdigest(), inode=token, token=token
        )
        with self.change(self.twins(path, state) if old else {path: state}):
            fd = os.open(self.full(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            with os.fdopen(fd, "wb", buffering=0) as file:
                for at in range(0, size, 64 * 1024):
                    file.write(data[at : at + 64 * 1024])
                    time.sleep(self.random.random() * 0.002)

    def new(self) -> None:
        """Create a file."""
        self.put(self.fresh(), self.size())

    def rewrite(self) -> None:
        """Write a file anew where it stands."""
        self.put(self.random.choice(self.names("f")), self.size())

    def replace(self) -> None:
        """Replace a file by rename, as careful programs do."""
        path = self.random.choice(self.names("f"))
        temporary = self.fresh()
        self.put(temporary, self.size())
        self.move(temporary, path)

    def append(self) -> None:
        """One more line for a log."""
        path = self.random.choice(self.names("f"))
        old = self.ledger.names[path]
        assert old is not None
        token, more = self.token(), self.random.randrange(1, 4000)
        with self.full(path).open("rb+", buffering=0) as file:
            hasher = blake3(file.read())
            hasher.update(content(token, more))
            state = replace(
                old,
                size=old.size + more,
                digest=hasher.hexdigest(),
                token=token,
                base=old.size,
                base_digest=old.digest,
            )
            with self.change(self.twins(path, state)):
                file.write(content(token, more))

    def secretly(self) -> None:
        """Other bytes, as many as before, and the old time."""
        small = [p for p in self.names("f") if 0 < (self.ledger.names[p] or State("f")).size <= 4096]
        if not small:
            return self.put(self.fresh(), 1000)
        path = self.random.choice(small)
        old = self.ledger.names[path]
        assert old is not None
        token = self.token()
        data = content(token, old.size)
        state = State("f", old.mode, old.size, blake3(data).hexdigest(), inode=old.inode, token=token)
        with self.change(self.twins(path, state)):
            fd = os.open(self.full(path), os.O_WRONLY)
            time_ns = os.fstat(fd).st_mtime_ns
            os.pwrite(fd, data, 0)
            os.utime(fd, ns=(time_ns, time_ns))
            os.close(fd)

    def move(self, path: bytes, to: bytes) -> None:
        """Rename anything; a folder with all in it."""
        below = [p for p, s in self.ledger.names.items() if s and p.startswith(path + b"/")]
        changed: dict[bytes, State | None] = dict.fromkeys((path, *below))
        changed.update({to + p[len(path) :]: self.ledger.names[p] for p in (path, *below)})
        with self.change(changed):
            self.full(path).rename(self.full(to))

    def rename(self) -> None:
        """Rename a file or link."""
        self.move(self.random.choice(self.names("f") + self.names("l")), self.fresh())

    def rename_folder(self) -> None:
        """Rename a folder, unless the new name is below it or a database is."""
        path, to = self.random.choice(self.names("d")), self.fresh()
        if not to.startswith(path + b"/") and not any(d.startswith(path + b"/") for d in DATABASES):
            self.move(path, to)

    def delete(self) -> None:
        """Remove a file or link."""
        path = self.random.choice(self.names("f") + self.names("l"))
        with self.change({path: None}):
            self.full(path).unlink()

    def delete_folder(self) -> bytes | None:
        """Remove a folder with all in it; its name."""
        path = self.random.choice(self.names("d"))
        if any(d.startswith(path + b"/") for d in DATABASES):
            return None
        below = [p for p, s in self.ledger.names.items() if s and p.startswith(path + b"/")]
        if len(below) > 12:
            return None
        with self.change(dict.fromkeys((path, *below))):
            shutil.rmtree(self.full(path))
        return path

    def folder_to_file(self) -> None:
        """A file where a folder was."""
        if path := self.delete_folder():
            self.put(path, self.size())

    def file_to_folder(self) -> None:
        """A folder with a file in it where a file was."""
        path = self.random.choice(self.names("f"))
        if len(path) > 600:
            return
        with self.change({path: None}):
            self.full(path).unlink()
        self.mkdir(path)
        self.put(path + b"/inside", self.size())

    def mkdir(self, path: bytes) -> None:
        """An empty folder."""
        with self.change({path: State("d", 0o755)}):
            self.full(path).mkdir(0o755)

    def make_folder(self) -> None:
        """An empty folder, unless there are many."""
        path = self.fresh()
        if len(self.names("d")) < 25 and len(path) < 500:
            self.mkdir(path)
        else:
            self.delete_folder()

    def symlink(self) -> None:
        """A link that leads somewhere or nowhere, within the project."""
        path = self.fresh()
        up = b"../" * path.count(b"/")
        target = up + self.random.choice([*self.names("f"), *self.names("d"), b"nowhere\n"])
        with self.change({path: State("l", target=target.decode("latin-1"))}):
            self.full(path).symlink_to(os.fsdecode(target))

    def hard_link(self) -> None:
        """A second name."""
        path, to = self.random.choice(self.names("f")), self.fresh()
        with self.change({to: self.ledger.names[path]}):
            self.full(to).hardlink_to(self.full(path))

    def chmod(self) -> None:
        """Other rights."""
        path = self.random.choice(self.names("f"))
        old = self.ledger.names[path]
        assert old is not None
        mode = self.random.choice([m for m in (0o600, 0o644, 0o755, 0o444) if m != old.mode])
        with self.change(self.twins(path, replace(old, mode=mode))):
            self.full(path).chmod(mode)

    def large(self) -> None:
        """A large file, once those of before have arrived."""
        if self.whole and self.random.random() < 0.1:
            number = self.random.randrange(3)
            self.put(LARGE + b"/movie-%d.mrc" % number, LARGE_SIZE + self.random.randrange(1000))

    def row(self) -> None:
        """A transaction."""
        path = self.random.choice(list(DATABASES))
        if path not in self._databases:
            self._databases[path] = database.connect(self.full(path), DATABASES[path])
        db = self._databases[path]
        self.ledger.begin_rows(path, database.count(db) + 1)
        database.add(db, self.random.randbytes(self.random.randrange(2000)))
        self.ledger.end()

    def work(self) -> None:
        """One thing."""
        files = len(self.names("f"))
        more: list[Callable[[], object]] = [self.new, self.new, self.file_to_folder, self.hard_link]
        less: list[Callable[[], object]] = [self.delete, self.delete, self.delete_folder, self.folder_to_file]
        same: list[Callable[[], object]] = [
            self.rewrite, self.replace, self.append, self.append, self.secretly, self.rename, self.chmod,
            self.rename_folder, self.make_folder, self.symlink, self.large, *[self.row] * 4,
        ]  # fmt: skip
        self.random.choice(same + more * (files < MANY) + less * (files > FEW))()

    def rest(self) -> None:
        """Let go of the databases, as a program that ends well does."""
        for db in self._databases.values():
            db.close()
        self._databases.clear()

    def close(self) -> None:
        """The end."""
        self.rest()
        self.ledger.close()


def make_tree(root: Path, ledger: Path, seed: str) -> None:
    """A project to begin with, in an empty folder, and its ledger."""
    writer = Writer(root, _empty(ledger), seed)
    writer.whole = True
    for folder in (b"Runs", LARGE, b"data", b"data/empty"):
        writer.mkdir(folder)
    for path, mode in DATABASES.items():
        with writer.change({path: State("b")}):
            database.make(writer.full(path), mode)
    for number in range(3):
        writer.put(LARGE + b"/movie-%d.mrc" % number, LARGE_SIZE + number)
    for _ in range(FEW):
        writer.put(writer.fresh(), writer.size())
    for _ in range(FEW):
        writer.work()
    writer.close()


def _empty(ledger: Path) -> Path:
    ledger.touch()
    return ledger


def main() -> None:
    """Work until told otherwise."""
    os.umask(0o022)
    writer = Writer(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    sys.stdout.write("paused\n")
    sys.stdout.flush()
    paused = True
    with closing(writer):
        while True:
            ready, _, _ = select.select([0], [], [], None if paused else writer.random.random() * PAUSE)
            if ready:
                line = os.read(0, 100).decode().split()
                if not line or "quit" in line:
                    return
                for word in line:
                    writer.whole |= word == "whole"
                    paused = word == "pause" or (paused and word != "go")
                    if word == "touch":
                        writer.chmod()
                    if word == "large":
                        writer.put(LARGE + b"/movie-0.mrc", LARGE_SIZE)
                    if word in ("pause", "touch", "large"):
                        writer.rest()
                        sys.stdout.write("paused\n")
                        sys.stdout.flush()
            elif not paused:
                writer.work()


if __name__ == "__main__":
    main()
