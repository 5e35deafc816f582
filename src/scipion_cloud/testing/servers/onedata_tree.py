"""The files of the fake Oneprovider: what Onedata keeps, in memory, with the errors that it documents."""

import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import Any

PROVIDER = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
OTHER_PROVIDER = "ffeeddccbbaa99887766554433221100"


class Refused(Exception):
    """An answer that is an error: HTTP status, Onedata's id of the error, details."""

    def __init__(self, status: int, error: str, **details: Any) -> None:
        self.status = status
        self.body = {"error": {"id": error, "description": f"Failed: {error} {details}", "details": details}}
        super().__init__(error)


def posix(errno: str) -> Refused:
    """An error of files: always HTTP 400."""
    return Refused(400, "posix", errno=errno)


@dataclass
class Inode:
    """What hard links share."""

    content: bytearray = field(default_factory=bytearray)
    mode: int = 0o664
    mtime: int = field(default_factory=lambda: int(time.time()))
    links: int = 1
    xattrs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Node:
    """A name in a folder."""

    id: str
    name: str
    type: str  # REG, DIR, SYMLNK
    parent: "Node | None"
    inode: Inode = field(default_factory=Inode)
    children: dict[str, "Node"] = field(default_factory=dict)
    target: bytes = b""
    provider: str = PROVIDER

    @property
    def path(self) -> str:
        return f"{self.parent.path}/{self.name}" if self.parent else self.name


class Tree:
    """The files of all spaces. The lock is to be held around every call."""

    def __init__(self, spaces: dict[str, str]) -> None:
        self.lock = threading.RLock()
        self._numbers = itertools.count(1)
        self.nodes: dict[str, Node] = {}
        for space_id, name in spaces.items():
            self.nodes[space_id] = Node(space_id, name, "DIR", None)

    def by_id(self, file_id: str) -> Node:
        """Raises Refused: an id that is none is 400, one of a file that is gone is enoent."""
        if file_id in self.nodes:
            return self.nodes[file_id]
        if len(file_id) == 40 and file_id.isalnum():
            raise posix("enoent")
        raise Refused(400, "badValueIdentifier", key="id")

    def find(self, root: Node, parts: list[bytes]) -> Node:
        """The node at a path; symlinks are not followed."""
        node = root
        for part in parts:
            if node.type != "DIR":
                raise posix("enotdir")
            name = self.name(part)
            if name not in node.children:
                raise posix("enoent")
            node = node.children[name]
        return node

    def name(self, raw: bytes) -> str:
        """A name as Onedata takes it: text without '/', not too long."""
        try:
            name = raw.decode()
        except UnicodeDecodeError as e:
            raise Refused(400, "badValueString", key="path") from e
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise Refused(400, "badValueFilePath")
        if len(raw) > 255:
            raise posix("enametoolong")
        return name

    def folder(self, root: Node, parts: list[bytes], make: bool) -> Node:
        """The folder at a path, made with those above it if `make`."""
        for n in range(1, len(parts) + 1):
            try:
                self.find(root, parts[:n])
            except Refused:
                if not make:
                    raise
                self.add(self.find(root, parts[: n - 1]), parts[n - 1], "DIR")
        found = self.find(root, parts)
        if found.type != "DIR":
            raise posix("enotdir")
        return found

    def add(self, parent: Node, raw: bytes, type_: str, inode: Inode | None = None) -> Node:
        """A new node where nothing stands."""
        name = self.name(raw)
        if parent.type != "DIR":
            raise posix("enotdir")
        if name in parent.children:
            raise posix("eexist")
        node = Node(f"{next(self._numbers):040X}", name, type_, parent, inode or Inode())
        node.inode.links += inode is not None
        parent.children[name] = self.nodes[node.id] = node
        parent.inode.mtime = int(time.time())
        return node

    def conflicting(self, parent: Node, name: str, content: bytes) -> Node:
        """A file of the same name that another provider made at the same time; we see it with a suffix."""
        node = self.add(parent, f"{name}@{OTHER_PROVIDER[:6]}".encode(), "REG")
        node.inode.content[:] = content
        node.provider = OTHER_PROVIDER
        return node

    def remove(self, node: Node) -> None:
        """Remove a node with all below it."""
        if node.parent is None:
            raise posix("eperm")
        for child in list(node.children.values()):
            self.remove(child)
        node.inode.links -= 1
        del node.parent.children[node.name]
        del self.nodes[node.id]

    def move(self, node: Node, parent: Node, raw: bytes) -> None:
        """Give a node another name in another folder, at which nothing stands; its id stays."""
        name = self.name(raw)
        above: Node | None = parent
        while above:
            if above is node:
                raise posix("einval")
            above = above.parent
        assert node.parent is not None
        assert name not in parent.children
        del node.parent.children[node.name]
        node.name, node.parent = name, parent
        parent.children[name] = node
