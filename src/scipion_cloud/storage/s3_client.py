"""The HTTP clients of an S3 storage, and what they are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from obstore.store import S3Store

if TYPE_CHECKING:  # obstore has them for type checkers only
    from obstore.store import ClientConfig, S3Credential

CONNECT = "10s"
SILENCE = "30s"
# Sending counts as silence: of a part whose 64 MiB of companions share the line, 120 s are 0.6 MB/s.
SILENCE_OF_UPLOADS = "120s"
SILENCE_OF_COPIES = "900s"  # 5 GiB, the largest, at 6 MB/s


@dataclass(frozen=True)
class Bucket:
    """A bucket of a server, and what lets one in."""

    endpoint: str  # http(s)://host[:port]
    name: str
    region: str
    credential: S3Credential


@dataclass(frozen=True)
class Clients:
    """Clients of one bucket that differ in how long they wait for a server that says nothing."""

    quick: S3Store
    uploads: S3Store
    copies: S3Store


def clients_of(bucket: Bucket) -> Clients:
    """The clients of a bucket. Does not talk to the server."""
    return Clients(
        _client(bucket, SILENCE), _client(bucket, SILENCE_OF_UPLOADS), _client(bucket, SILENCE_OF_COPIES)
    )


def _client(bucket: Bucket, silence: str) -> S3Store:
    options: ClientConfig = {
        "allow_http": bucket.endpoint.startswith("http:"),
        "connect_timeout": CONNECT,
        "read_timeout": silence,
        "timeout": "7d",  # of all of a request: a large file on a slow line is no error
        "pool_idle_timeout": "20s",  # before the servers' own, so that they do not hang up on a request
        "user_agent": "scipion-cloud",
    }
    return S3Store(
        bucket.name,
        endpoint=bucket.endpoint,
        region=bucket.region,
        # A provider, and the rest by name: AWS_... in the environment is not about this storage.
        credential_provider=lambda: bucket.credential,
        virtual_hosted_style_request=False,
        skip_signature=False,
        s3_express=False,
        conditional_put="etag",
        disable_bulk_delete=True,  # one at a time tells what was refused
        client_options=options,
        retry_config={"max_retries": 0},
    )
