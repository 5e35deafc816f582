"""What the S3 servers of the tests have in common."""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import httpx
import obstore
from obstore.store import S3Store

from scipion_cloud.errors import SetupError

ACCESS_KEY = "AKIASCIENTIST"
SECRET_KEY = "apoferritin/at+1.2=A"  # noqa: S105 - of a server on 127.0.0.1 that lives as long as a test


@dataclass(frozen=True)
class S3Server:
    """A running server on a port of 127.0.0.1."""

    port: int
    scheme: str = "http"

    @property
    def endpoint(self) -> str:
        """As S3 clients want it."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        """What lets one in, as `open_storage` takes it."""
        return {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}

    def url(self, bucket: str, port: int | None = None) -> str:
        """The URL of a bucket, as `open_storage` takes it; with `port`, behind another port: a proxy's."""
        return f"s3+{self.scheme}://127.0.0.1:{port or self.port}/{bucket}"

    def bucket(self) -> str:
        """Make an empty bucket; its name."""
        name = f"test-{uuid.uuid4().hex}"
        answer = httpx.put(self.signed("PUT", name), verify=False, timeout=60)  # noqa: S501 - 127.0.0.1
        if answer.is_error:
            raise SetupError(f"No bucket could be made: {answer.status_code} {answer.text[:500]}")
        return name

    def signed(self, method: Literal["GET", "PUT", "DELETE"], path: str) -> str:
        """A URL with which this may be done, for an hour, to a bucket, or to a bucket and a key."""
        # what comes after the host is the "key" of a store whose host already stands for a bucket
        store = S3Store(
            "any",
            endpoint=self.endpoint,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            region="us-east-1",
            virtual_hosted_style_request=True,
            client_options={"allow_http": True},
        )
        return obstore.sign(store, method, path, timedelta(hours=1))
