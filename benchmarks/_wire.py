"""One file to an S3 server or back, in parts: what the wire can.

python benchmarks/_wire.py ENDPOINT BUCKET up|down FILE
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
from obstore.store import S3Store

from scipion_cloud.testing.servers.s3server import ACCESS_KEY, SECRET_KEY

_PART = 8 << 20  # bytes


def main(endpoint: str, bucket: str, way: str, file: Path) -> None:
    """Send it, or fetch it."""
    store = S3Store(
        bucket,
        endpoint=endpoint,
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        region="us-east-1",
        client_options={"allow_http": True},
    )
    if way == "up":
        obstore.put(store, "one", file, use_multipart=True, chunk_size=_PART, max_concurrency=8)
        return
    size = obstore.head(store, "one")["size"]
    with file.open("wb") as out, ThreadPoolExecutor(8) as pool:
        for part in pool.map(
            lambda n: obstore.get_range(store, "one", start=n, length=min(_PART, size - n)),
            range(0, size, _PART),
        ):
            out.write(part)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
