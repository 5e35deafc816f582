"""S3 storages: what others left in the bucket, what servers refuse, and what becomes of it on the way."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from scipion_cloud.errors import (
    InvalidInput,
    StorageDenied,
    StorageError,
    StorageExists,
    StorageFull,
    StorageMissing,
    StorageTransient,
)
from scipion_cloud.storage import Kind, Storage, open_storage, s3, s3_client, s3_transfer
from scipion_cloud.testing.certificates import certificates
from scipion_cloud.testing.servers.moto import moto
from scipion_cloud.testing.servers.radosgw import Radosgw
from scipion_cloud.testing.servers.s3server import ACCESS_KEY, SECRET_KEY
from scipion_cloud.testing.storage.common import noise

CREDENTIALS = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def opened(url: str, **credentials: str) -> Iterator[Storage]:
    with open_storage(url, {**CREDENTIALS, **credentials}, retry=False) as storage:
        yield storage


class Request(BaseHTTPRequestHandler):
    """A request, and how it is answered: `server.answer`."""

    protocol_version = "HTTP/1.1"
    server: "Front"

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.answer(self)
        self.close_connection = True
        if answer is None:
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in {"Connection": "close", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


class Front(ThreadingHTTPServer):
    request_queue_size = 100
    answer: Callable[[Request], Answer | None]


@contextmanager
def front(answer: Callable[[Request], Answer | None]) -> Iterator[int]:
    """A server that answers so, or hangs up; its port."""
    with Front(("127.0.0.1", 0), Request) as server:
        server.answer = answer
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def everything(storage: Storage) -> dict[str, Callable[[], object]]:
    """One call of each kind."""
    with Path(os.devnull).open("wb") as null:
        fd = os.dup(null.fileno())
    return {
        "children": lambda: list(storage.children()),
        "walk": lambda: list(storage.walk()),
        "stat": lambda: storage.stat("a/b"),
        "read": lambda: storage.read_bytes("a/b"),
        "download": lambda: storage.download("a/b", fd),
        "write": lambda: storage.write("a/b", b"x"),
        "write parts": lambda: storage.write("a/b", bytes(s3.PART + 1)),
        "create": lambda: storage.create("a/b", b"x"),
        "move": lambda: storage.move("a/b", "c"),
        "remove": lambda: storage.remove("a/b"),
    }


def test_folders_that_other_programs_made(s3_server: Radosgw) -> None:
    bucket = s3_server.bucket()
    client = boto3.client(
        "s3",
        endpoint_url=s3_server.endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )
    for key in ("project/", "project/empty/", "project/full/", "project/full/file", "project/nothing"):
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    with opened(s3_server.url(f"{bucket}/project/")) as storage:
        assert {stat.key for stat in storage.walk()} == {"full/file", "nothing"}
        assert {(stat.key, stat.kind) for stat in storage.children()} == {
            ("empty", Kind.FOLDER),
            ("full", Kind.FOLDER),
            ("nothing", Kind.FILE),
        }
        assert list(storage.children("empty")) == []
        assert storage.stat("full").kind is Kind.FOLDER
        with pytest.raises(StorageMissing):
            storage.stat("empty")
    client.put_object(Bucket=bucket, Key="project/a//b", Body=b"")
    with opened(s3_server.url(f"{bucket}/project")) as storage, pytest.raises(StorageError, match="a//b"):
        list(storage.walk())
    client.close()


def test_a_bucket_that_is_not_there(s3_server: Radosgw) -> None:
    with opened(s3_server.url("no-such-bucket/folder")) as storage:
        for what, call in everything(storage).items():
            with pytest.raises(StorageError, match=r"no such bucket .*Create it") as caught:
                call()
            assert type(caught.value) is StorageError, what


@pytest.mark.parametrize(
    ("credentials", "why"),
    [({"secret_key": "wrong"}, "the secret key is wrong"), ({"access_key": "no"}, "not know the access key")],
)
def test_wrong_keys(s3_server: Radosgw, credentials: dict[str, str], why: str) -> None:
    with opened(s3_server.url(s3_server.bucket()), **credentials) as storage:
        for call in everything(storage).values():
            with pytest.raises(StorageDenied):
                call()
        with pytest.raises(StorageDenied, match=why):
            list(storage.children())


def test_a_bucket_for_reading_only(s3_server: Radosgw) -> None:
    bucket = s3_server.bucket()
    with opened(s3_server.url(bucket)) as storage:
        storage.write("a/b", b"x")
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": ["s3:PutObject", "s3:DeleteObject"],
                    "Resource": [f"arn:aws:s3:::{bucket}/*"],
                }
            ],
        }
        client = boto3.client(
            "s3",
            endpoint_url=s3_server.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )
        client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        client.close()
        assert storage.read_bytes("a/b") == b"x"
        calls = everything(storage)
        for what in ("write", "write parts", "create", "move", "remove"):
            with pytest.raises(StorageDenied, match="these keys may not do that"):
                calls[what]()


def test_a_full_bucket(s3_server: Radosgw) -> None:
    bucket = s3_server.bucket()
    with opened(s3_server.url(bucket)) as storage:
        storage.write("a/b", b"x")
        s3_server.limit(bucket, 1)
        for write in (storage.write, storage.create):
            with pytest.raises(StorageFull, match="larger quota"):
                write("new", b"x")


def test_certificates_of_our_own_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = certificates(tmp_path)
    with moto(tmp_path, made.server, made.key) as server:
        url = server.url(server.bucket())
        with opened(url) as storage, pytest.raises(StorageError, match="SSL_CERT_FILE") as caught:
            storage.write("a", b"x")
        assert not isinstance(caught.value, StorageTransient)
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
        with opened(url) as storage:
            storage.write("a", b"x")
            assert storage.read_bytes("a") == b"x"


def test_the_environment_says_nothing_about_it(s3_server: Radosgw, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "other",
        "AWS_SECRET_ACCESS_KEY": "other",
        "AWS_SESSION_TOKEN": "other",
        "AWS_ENDPOINT": "http://127.0.0.1:1",
        "AWS_REGION": "eu-west-1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_CONDITIONAL_PUT": "disabled",
    }.items():
        monkeypatch.setenv(name, value)
    with opened(s3_server.url(s3_server.bucket())) as storage:
        storage.create("a", b"x")
        with pytest.raises(StorageExists):
            storage.create("a", b"x")


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SILENCE", "SILENCE_OF_UPLOADS", "SILENCE_OF_COPIES"):
        monkeypatch.setattr(s3_client, name, "300ms")
    over = threading.Event()

    def wait(_: Request) -> None:
        over.wait(60)

    with front(wait) as port:
        with opened(f"s3+http://127.0.0.1:{port}/bucket") as storage:
            for call in everything(storage).values():
                with pytest.raises(StorageTransient, match="did not answer in time"):
                    call()
        over.set()


def test_nobody_there(free_port: int) -> None:
    with opened(f"s3+http://127.0.0.1:{free_port}/bucket") as storage:
        for call in everything(storage).values():
            with pytest.raises(StorageTransient, match="Connection refused"):
                call()


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (500, "InternalError", StorageTransient),
        (503, "SlowDown", StorageTransient),
        (503, "", StorageTransient),
        (429, "", StorageTransient),
        (400, "RequestTimeout", StorageTransient),
        (400, "AuthorizationHeaderMalformed", StorageError),
        (403, "RequestTimeTooSkewed", StorageDenied),
        (403, "QuotaExceeded", StorageFull),
        (507, "", StorageFull),
        (405, "MethodNotAllowed", StorageError),
    ],
)
def test_what_servers_answer(status: int, code: str, error: type[StorageError]) -> None:
    body = f"<Error><Code>{code}</Code><Message>So &amp; so</Message></Error>".encode()
    with front(lambda _: (status, {}, body)) as port, opened(f"s3+http://127.0.0.1:{port}/bucket") as storage:
        for what, call in everything(storage).items():
            if what == "stat" and code in ("QuotaExceeded", "RequestTimeout"):
                continue  # a HEAD has no answer in words
            with pytest.raises(error) as caught:
                call()
            assert type(caught.value) is error, what
            assert SECRET_KEY not in str(caught.value)


def test_a_create_that_met_another(s3_server: Radosgw) -> None:
    """409 says that another was at work, not that something is there."""
    body = b"<Error><Code>ConditionalRequestConflict</Code></Error>"
    with (
        front(lambda _: (409, {}, body)) as port,
        opened(f"s3+http://127.0.0.1:{port}/bucket") as storage,
        pytest.raises(StorageTransient),
    ):
        storage.create("a", b"x")


def test_an_answer_that_is_cut_off(tmp_path: Path) -> None:
    headers = {"Content-Length": "1000", "Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT", "ETag": '"e"'}

    def cut(request: Request) -> Answer:
        if "Range" in request.headers:
            return 206, {**headers, "Content-Range": "bytes 0-999/1000"}, b"only this"
        return 200, headers, b"only this"

    with front(cut) as port, opened(f"s3+http://127.0.0.1:{port}/bucket") as storage:
        with pytest.raises(StorageTransient):
            storage.read_bytes("a")
        with (tmp_path / "a").open("wb") as target, pytest.raises(StorageTransient):
            storage.download("a", target.fileno())


def test_what_servers_do_not_copy_goes_through_us(
    s3_server: Radosgw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "COPIES", s3.PART)
    refused = b"<Error><Code>InvalidRequest</Code><Message>larger than the maximum</Message></Error>"

    def refuse_copies(request: Request) -> Answer:
        if request.command == "PUT" and "x-amz-copy-source" in request.headers:
            return 400, {}, refused
        answer = httpx.request(
            request.command,
            f"{s3_server.endpoint}{request.path}",
            headers=dict(request.headers),
            content=request.body,
        )
        kept = ("content-type", "content-range", "etag", "last-modified")
        headers = {name: answer.headers[name] for name in kept if name in answer.headers}
        if request.command == "HEAD":
            headers["Content-Length"] = answer.headers["content-length"]
        return answer.status_code, headers, answer.content

    big, small = noise(s3.PART + 1), noise(1000)
    with front(refuse_copies) as port, opened(s3_server.url(s3_server.bucket(), port)) as storage:
        storage.write("big", big)
        storage.write("small", small)
        storage.move("big", "kept/big")
        assert storage.read_bytes("kept/big") == big
        with pytest.raises(StorageError, match="larger than the maximum"):
            storage.move("small", "kept/small")
        assert {stat.key for stat in storage.walk()} == {"kept/big", "small"}


def test_a_file_that_is_replaced_while_it_is_downloaded(
    s3_server: Radosgw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = noise(20 * s3.MIB, 1), noise(5 * s3.MIB, 2)
    with opened(s3_server.url(s3_server.bucket())) as storage, (tmp_path / "file").open("w+b") as target:
        storage.write("file", old)
        monkeypatch.setattr(s3_transfer, "PART", s3.MIB)
        pwrite, one, replaced = os.pwrite, threading.Lock(), threading.Event()

        def replace_then_write(fd: int, data: memoryview, place: int) -> int:
            with one:  # nobody goes on meanwhile
                if not replaced.is_set():
                    storage.write("file", new)
                    replaced.set()
            return pwrite(fd, data, place)

        monkeypatch.setattr(os, "pwrite", replace_then_write)
        with pytest.raises(StorageTransient, match="replaced"):
            storage.download("file", target.fileno())
        target.truncate(0)
        assert storage.download("file", target.fileno()) == len(new)
        assert (tmp_path / "file").read_bytes() == new


@pytest.mark.parametrize(
    "url",
    [
        "s3+http://key@127.0.0.1/bucket",
        "s3+http://127.0.0.1",
        "s3+http://127.0.0.1/",
        "s3+https:///bucket/folder",
        "s3:///bucket",
        "s3+http://127.0.0.1/bucket/../other",
        "s3+http://127.0.0.1/bucket/a//b",
        f"s3+http://127.0.0.1/bucket/{'n' * 1100}",
    ],
)
def test_urls_that_cannot_be_right(url: str) -> None:
    with pytest.raises(InvalidInput), opened(url):
        pass


@pytest.mark.parametrize(
    ("url", "shown", "longest"),
    [
        ("s3+http://127.0.0.1:1234/bucket", "s3+http://127.0.0.1:1234/bucket", 1024),
        ("s3+https://s3.example.org/b/a%20b/c%25/", "s3+https://s3.example.org/b/a%20b/c%25", 1017),
        ("s3://bucket/folder", "s3://bucket/folder", 1017),
        ("s3://bucket", "s3://bucket", 1024),
    ],
)
def test_urls(url: str, shown: str, longest: int) -> None:
    with opened(url) as storage:
        assert storage.url == shown
        assert storage.capabilities.max_key == longest
        with opened(storage.url) as same:
            assert same.url == shown
