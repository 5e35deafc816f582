"""What an S3 server or the way to it says, in our words."""

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from scipion_cloud.errors import (
    InvalidInput,
    StorageDenied,
    StorageError,
    StorageExists,
    StorageFull,
    StorageMissing,
    StorageTransient,
)

INSIDE = "\n\nDebug source"
ANSWERED = "Server returned non-2xx status code: "
BUSY = {408, 425, 429, 500, 502, 503, 504}
FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
AGAIN = {"RequestTimeout", "SlowDown", "OperationAborted", "ConditionalRequestConflict", "InternalError"}
DENIED = {
    "AccessDenied": "these keys may not do that; ask the owner of the bucket to let them",
    "AllAccessDisabled": "the bucket is closed",
    "ExpiredToken": "the session token has expired; give a new one",
    "InvalidAccessKeyId": "it does not know the access key",
    "InvalidToken": "the session token is not one of its own",
    "RequestTimeTooSkewed": "the clock of this machine is not that of the server; set it right",
    "SignatureDoesNotMatch": "the secret key is wrong",
}
ELSEWHERE = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Errors of obstore become ours; `what` tells what was tried: "reading 'a/b' of s3+https://...".

    Errors that are not obstore's, of the file that is uploaded for example, come through.
    """
    try:
        yield
    except BaseError as e:
        # without the cause: it is a page of the client's inner life, with the whole answer of the server
        raise translation(e, str(e), what) from None
    except FileNotFoundError as e:
        if e.errno is not None:  # the system's, not obstore's
            raise
        raise translation(e, str(e), what) from None


def status_of(text: str) -> int | None:
    """The HTTP status that the text of an error tells, if the server has answered."""
    found = re.match(r"\d{3}", text.rpartition(ANSWERED)[2]) if ANSWERED in text else None
    return int(found[0]) if found else None


def code_of(text: str) -> str:
    """S3's own word for what is wrong ("NoSuchKey"), or ""."""
    return _element("Code", text.partition(INSIDE)[0].rpartition(ANSWERED)[2])


def translation(error: Exception, text: str, what: str) -> StorageError | InvalidInput:
    """The error of ours that says the same."""
    text, _, inner = text.partition(INSIDE)
    status = status_of(text)
    if status is None:
        return _without_answer(error, text, inner, what)
    answer = text.rpartition(ANSWERED)[2]
    code, said = _element("Code", answer), _element("Message", answer)
    reason = ": ".join(part for part in (code or f"HTTP {status}", said) if part)
    if code == "NoSuchBucket":
        return StorageError(f"There is no such bucket ({what}). Create it, or correct the URL.")
    if code in FULL or status == 507:
        return StorageFull(f"There is no room left ({what}: {reason}). Free some, or ask for a larger quota.")
    if code in AGAIN or status in BUSY:
        return StorageTransient(f"The S3 server is busy or in trouble ({what}: {reason}).")
    if isinstance(error, (AlreadyExistsError, PreconditionError)):
        return StorageExists(f"Something is there already ({what}).")
    if code in ELSEWHERE or status in (301, 307):
        return StorageError(f"The bucket is in another region ({what}: {reason}). Set the region.")
    if status in (401, 403):
        why = DENIED.get(code, said or "it says no more; check the keys and their rights on the bucket")
        return StorageDenied(f"The S3 server refuses it ({what}): {why}.")
    if status == 404:
        return StorageMissing(f"There is nothing ({what}).")
    return StorageError(f"The S3 server refuses it ({what}: {reason}).")


def _element(name: str, answer: str) -> str:
    """The text of an XML element of the server's answer, or ""."""
    found = re.search(f"<{name}>([^<]*)</{name}>", answer)
    return html.unescape(found[1]).strip()[:300] if found else ""


def _without_answer(error: Exception, text: str, inner: str, what: str) -> StorageError:
    if "InvalidCertificate" in inner or "invalid peer certificate" in inner:
        return StorageError(
            f"The certificate of the S3 server is not trusted ({what}). If it is right, name the file with "
            "its authority's certificate in the environment variable SSL_CERT_FILE."
        )
    if "InvalidPath" in type(error).__name__:
        return StorageError(
            f"An object has a name that cannot be a path ({what}). Rename or delete it. {text}"
        )
    if "TimedOut" in inner or "kind: Timeout" in inner:
        return StorageTransient(f"The S3 server did not answer in time ({what}).")
    reasons = re.findall(r'(?:message|error): "([^"]+)"', inner) or [text.rpartition(" - ")[2]]
    return StorageTransient(f"The S3 server was not reached, or hung up ({what}: {reasons[-1][:300]}).")
