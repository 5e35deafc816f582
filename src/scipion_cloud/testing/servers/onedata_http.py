"""The HTTP side of the fake Onedata."""

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from scipion_cloud.testing.servers.onedata_tree import PROVIDER, Inode, Node, Refused, posix

if TYPE_CHECKING:
    from scipion_cloud.testing.servers.onedata import OnedataFake, Scope

CHUNK = 64 * 1024
SNAKE = {
    "fileId": "file_id",
    "posixPermissions": "mode",
    "parentFileId": "parent_id",
    "displayGid": "storage_group_id",
    "displayUid": "storage_user_id",
    "originProviderId": "provider_id",
    "directShareIds": "shares",
    "ownerUserId": "owner_id",
    "hardlinkCount": "hardlinks_count",
}
NEW_ONLY = {"symlinkValue", "conflictingName", "path"}  # attributes of the newer dialect alone


class Handler(BaseHTTPRequestHandler):
    """Answers one request after another of one connection."""

    fake: "OnedataFake"
    protocol_version = "HTTP/1.1"
    server_version = "FakeOnedata (a fake for tests, no Onedata)"
    sys_version = ""
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # also TLS's: a client that goes away, or that does not like our certificate
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, method: str) -> None:
        self.fake.requests.append(f"{method} {self.path}")
        self._left = int(self.headers.get("Content-Length") or 0)
        try:
            if self.fake.busy > 0:
                self.fake.busy -= 1
                raise Refused(503, "serviceUnavailable")
            self._route(method)
        except Refused as e:
            self._json(e.status, e.body)
        except (AssertionError, KeyError, ValueError) as e:
            self._json(500, {"error": {"id": "internalServerError", "description": repr(e)}})

    def do_GET(self) -> None:
        self._answer("GET")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    # -- requests and answers

    def _chunk(self) -> bytes:
        """The next bytes of the body. Raises ConnectionError if the client is cut off."""
        data = self.rfile.read(min(CHUNK, self._left))
        if self._left and not data:
            raise ConnectionError
        self._left -= len(data)
        return data

    def _body(self) -> bytes:
        data = bytearray()
        while self._left:
            data += self._chunk()
        return bytes(data)

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        while self._left:  # what the client still sends
            self._chunk()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, status: int, told: Any) -> None:
        self._send(status, json.dumps(told).encode(), {"Content-Type": "application/json"})

    # -- routes

    def _route(self, method: str) -> None:
        url = urlsplit(self.path)
        self._query = parse_qsl(url.query, keep_blank_values=True, errors="surrogateescape")
        parts = [unquote_to_bytes(part) for part in url.path.split("/") if part]
        match [part.decode(errors="replace") for part in parts[:4]]:
            case ["api", "v3", "onezone", *_]:
                self._onezone(method, [part.decode() for part in parts[3:]])
            case ["api", "v3", "oneprovider", "configuration"]:
                self._json(200, {"providerId": PROVIDER, "name": "fake", "version": self.fake.version})
            case ["api", "v3", "oneprovider", "lookup-file-id"] if method == "POST":
                with self.fake.tree.lock:
                    node = self._by_path(parts[4:])
                self._json(200, {"fileId": node.id})
            case ["api", "v3", "oneprovider", "data"]:
                self._data(method, parts[4:])
            case ["cdmi", *_] if method == "PUT":
                self._move(parts[1:])
            case _:
                raise Refused(404, "notFound")

    def _scope(self) -> "Scope":
        token = self.headers.get("X-Auth-Token") or self.headers.get("Authorization", "").removeprefix(
            "Bearer "
        )
        if token not in self.fake.tokens:
            raise Refused(401, "unauthorized")
        return self.fake.tokens[token]

    def _onezone(self, method: str, parts: list[str]) -> None:
        support = {PROVIDER: {"readonly": False}}
        match (method, parts):
            case ("POST", ["tokens", "infer_access_token_scope"]):
                token = json.loads(self._body())["token"]
                if token not in self.fake.tokens:
                    raise Refused(400, "badValueToken", key="token")
                scope = self.fake.tokens[token]
                provider = {
                    "name": "fake",
                    "domain": self.fake.host,
                    "version": self.fake.version,
                    "online": self.fake.online,
                }
                spaces = {i: {"name": name, "supports": support} for i, name in scope.spaces.items()}
                access = {"readonly": scope.readonly, "spaces": spaces, "providers": {PROVIDER: provider}}
                self._json(200, {"validUntil": int(time.time()) + 3600, "dataAccessScope": access})
            case ("GET", ["user", "spaces"]):
                self._json(200, {"spaces": list(self._scope().spaces)})
            case ("GET", ["user", "spaces", space_id]) if space_id in self._scope().spaces:
                name = self._scope().spaces[space_id]
                self._json(200, {"spaceId": space_id, "name": name, "providers": {PROVIDER: 2**40}})
            case _:
                raise Refused(404, "notFound")

    # -- files

    def _by_path(self, parts: list[bytes]) -> Node:
        """The node at a path that begins with a space: its name, or name@id; names may be ambiguous."""
        scope = self._scope()
        wanted = parts[0].decode()
        for space_id, name in scope.spaces.items():
            if wanted in (name, f"{name}@{space_id}"):
                return self.fake.tree.find(self.fake.tree.nodes[space_id], parts[1:])
        raise posix("enoent")

    def _node(self, file_id: str, *, change: bool) -> Node:
        scope = self._scope()
        node = self.fake.tree.by_id(file_id)
        space = node
        while space.parent:
            space = space.parent
        if space.id not in scope.spaces:
            raise Refused(403, "forbidden")
        if change and scope.readonly:
            raise posix("eacces")
        return node

    def _data(self, method: str, parts: list[bytes]) -> None:
        file_id = parts[0].decode()
        with self.fake.tree.lock:
            node = self._node(file_id, change=method != "GET")
        routes: dict[tuple[str, str], Callable[[Node], None]] = {
            ("GET", ""): self._get_attributes,
            ("PUT", ""): self._chmod,
            ("DELETE", ""): self._delete,
            ("GET", "children"): self._children,
            ("POST", "children"): self._post_child,
            ("GET", "files"): self._files,
            ("GET", "content"): self._get_content,
            ("PUT", "content"): self._put_content,
            ("GET", "symlink_value"): self._symlink_value,
            ("GET", "metadata/xattrs"): lambda n: self._json(200, n.inode.xattrs),
            ("PUT", "metadata/xattrs"): self._put_xattrs,
            ("DELETE", "metadata/xattrs"): self._delete_xattrs,
        }
        if len(parts) > 1 and parts[1] == b"path":
            self._at_path(method, node, parts[2:])
            return
        route = routes.get((method, b"/".join(parts[1:]).decode(errors="replace")))
        if route is None:
            raise Refused(404, "notFound")
        route(node)

    def _at_path(self, method: str, root: Node, parts: list[bytes]) -> None:
        if method == "PUT":
            query = dict(self._query)
            with self.fake.tree.lock:
                parent = self.fake.tree.folder(root, parts[:-1], query.get("create_parents") == "true")
            self._create(parent, parts[-1])
            return
        with self.fake.tree.lock:
            node = self.fake.tree.find(root, parts)
        if method == "DELETE":
            self._delete(node)
        elif method == "GET":
            self._get_content(node)
        else:
            raise Refused(404, "notFound")

    def _post_child(self, parent: Node) -> None:
        self._create(parent, dict(self._query)["name"].encode(errors="surrogateescape"))

    def _create(self, parent: Node, name: bytes) -> None:
        """The file is there first, and then its content; it goes again if that is cut off."""
        query = dict(self._query)
        type_ = query.get("type", "REG")
        tree = self.fake.tree
        with tree.lock:
            if type_ == "LNK":
                linked = self._node(query["target_file_id"], change=True)
                if linked.type != "REG":
                    raise posix("eperm")
                node = tree.add(parent, name, "REG", linked.inode)
            elif type_ in ("REG", "DIR", "SYMLNK"):
                target = query.get("target_file_path", "").encode(errors="surrogateescape")
                if type_ == "SYMLNK" and not target:
                    raise Refused(400, "missingRequiredValue", key="target_file_path")
                node = tree.add(parent, name, type_)
                node.target = target
            else:
                raise Refused(400, "badValueNotAllowed", key="type", allowed=["REG", "DIR", "LNK", "SYMLNK"])
        if type_ == "REG":
            try:
                self._fill(node.inode, int(query.get("offset", 0)))
            except OSError:
                with tree.lock:
                    tree.remove(node)
                raise
        self._json(201, {"fileId": node.id})

    def _fill(self, inode: Inode, offset: int) -> None:
        while self._left:
            data = self._chunk()
            with self.fake.tree.lock:
                if len(inode.content) < offset:
                    inode.content += bytes(offset - len(inode.content))
                inode.content[offset : offset + len(data)] = data
            offset += len(data)
        inode.mtime = int(time.time())

    def _put_content(self, node: Node) -> None:
        if node.type != "REG":
            raise posix("eisdir")
        query = dict(self._query)
        if "offset" not in query:
            with self.fake.tree.lock:
                node.inode.content.clear()
        self._fill(node.inode, int(query.get("offset", 0)))
        self._send(204)

    def _get_content(self, node: Node) -> None:
        if node.type == "SYMLNK":  # followed, unless one asks for the link itself
            if dict(self._query).get("follow_symlinks") == "false":
                self._send(200, node.target, {"Content-Type": "application/octet-stream"})
                return
            assert node.parent is not None
            with self.fake.tree.lock:
                node = self.fake.tree.find(node.parent, node.target.split(b"/"))
        if node.type == "DIR":
            self._send(302, headers={"Location": f"https://{self.fake.host}/download/{node.id}"})
            return
        with self.fake.tree.lock:
            content = bytes(node.inode.content)
        asked = self.headers.get("Range", "")
        if not asked.startswith("bytes=") or "," in asked:
            self._send(200, content, {"Content-Type": "application/octet-stream"})
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, len(content) - int(last))
        end = min(int(last) + 1 if last and first else len(content), len(content))
        if start >= len(content) or start >= end:
            self._send(416, headers={"Content-Range": f"bytes */{len(content)}"})
            return
        told = {"Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
        self._send(206, content[start:end], told)

    def _symlink_value(self, node: Node) -> None:
        if node.type != "SYMLNK":
            raise posix("einval")
        self._send(200, node.target, {"Content-Type": "application/octet-stream"})

    def _delete(self, node: Node) -> None:
        with self.fake.tree.lock:
            self.fake.tree.remove(self.fake.tree.by_id(node.id))
        self._send(204)

    def _chmod(self, node: Node) -> None:
        told = json.loads(self._body())
        key = "posixPermissions" if self.fake.camel_case and "mode" not in told else "mode"
        node.inode.mode = int(str(told[key]), 8)
        self._send(204)

    def _put_xattrs(self, node: Node) -> None:
        told = json.loads(self._body())
        if any(key.startswith(("onedata_", "cdmi_")) for key in told):
            raise posix("eperm")
        node.inode.xattrs.update(told)
        self._send(204)

    def _delete_xattrs(self, node: Node) -> None:
        for key in json.loads(self._body())["keys"]:
            node.inode.xattrs.pop(key, None)
        self._send(204)

    def _move(self, parts: list[bytes]) -> None:
        """CDMI: what stands at the target makes the real one fail in the middle, with 500."""
        if "X-CDMI-Specification-Version" not in self.headers:
            raise Refused(400, "missingRequiredValue", key="version")
        told = json.loads(self._body())
        source = [part.encode() for part in str(told["move"]).split("/") if part]
        tree = self.fake.tree
        with tree.lock:
            node = self._node(self._by_path(source).id, change=True)
            parent = self._node(self._by_path(parts[:-1]).id, change=True)
            if parent.type != "DIR":
                raise posix("enotdir")
            if tree.name(parts[-1]) in parent.children:
                raise Refused(500, "internalServerError")
            tree.move(node, parent, parts[-1])
        self._json(201, {"objectID": node.id, "objectName": node.name})

    # -- attributes

    def _all(self, node: Node) -> dict[str, Any]:
        inode = node.inode
        return {
            "fileId": node.id,
            "index": node.name,
            "type": node.type,
            "name": node.name,
            "path": f"/{node.path}",
            "conflictingName": node.name.partition("@")[0] if node.provider != PROVIDER else None,
            "size": None if node.type == "DIR" else len(node.target or inode.content),
            "posixPermissions": f"{inode.mode:o}",
            "parentFileId": node.parent.id if node.parent else None,
            "atime": inode.mtime,
            "mtime": inode.mtime,
            "ctime": inode.mtime,
            "displayGid": 1000,
            "displayUid": 1000,
            "originProviderId": node.provider,
            "directShareIds": [],
            "ownerUserId": "owner",
            "hardlinkCount": inode.links,
            "symlinkValue": node.target.decode(errors="replace") if node.type == "SYMLNK" else None,
        }

    def _attributes(self, node: Node, asked: list[str] | None, default: list[str] | None) -> dict[str, Any]:
        told = self._all(node)
        if not self.fake.camel_case:
            told = {SNAKE.get(key, key): value for key, value in told.items() if key not in NEW_ONLY}
        wanted = asked or default or [key for key in told if key not in NEW_ONLY]
        if unknown := [key for key in wanted if key not in told]:
            raise Refused(400, "badValueListNotAllowed", key="attributes", unknown=unknown)
        return {key: told[key] for key in wanted}

    def _asked(self) -> list[str] | None:
        """The attributes asked for: in a JSON body in the newer dialect, in the query in the older."""
        body = self._body()
        if self.fake.camel_case:
            return json.loads(body).get("attributes") if body else None
        return [value for key, value in self._query if key == "attribute"] or None

    def _get_attributes(self, node: Node) -> None:
        asked = self._asked()
        if not self.fake.camel_case and asked and len(asked) > 1:
            self._json(200, {})  # so does the real one of that time
            return
        self._json(200, self._attributes(node, asked, None))

    def _children(self, node: Node) -> None:
        if node.type != "DIR":
            raise posix("enotdir")
        default = ["fileId" if self.fake.camel_case else "file_id", "name"]
        self._page("children", [(name, child) for name, child in node.children.items()], default)

    def _files(self, node: Node) -> None:
        if node.type != "DIR":
            raise posix("enotdir")
        found = [(child.path, child) for child in self.fake.tree.nodes.values() if child.type != "DIR"]
        below = [(path, child) for path, child in found if path.startswith(f"{node.path}/")]
        self._page("files", below, ["fileId" if self.fake.camel_case else "file_id", "path"])

    def _page(self, kind: str, nodes: list[tuple[str, Node]], default: list[str]) -> None:
        query = dict(self._query)
        limit = int(query.get("limit", 1000))
        if not 1 <= limit <= 10_000:
            raise Refused(400, "badValueNotInRange", key="limit", low=1, high=10_000)
        asked = self._asked()
        after = bytes.fromhex(query.get("token", "")).decode()
        with self.fake.tree.lock:
            rest = sorted((pair for pair in nodes if pair[0] > after), key=lambda pair: pair[0])
            page = rest[:limit]
            told = [self._attributes(node, asked, default) for _, node in page]
        last = len(rest) <= limit
        token = None if last else page[-1][0].encode().hex()
        self._json(200, {kind: told, "isLast": last, "nextPageToken": token})
