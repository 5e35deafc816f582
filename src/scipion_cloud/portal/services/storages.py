"""Connecting storages, and looking into them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import UUID

from django.db.models import ProtectedError
from django.utils import timezone

from scipion_cloud.config import get_config
from scipion_cloud.errors import Conflict, InvalidInput, NotFound, StorageError
from scipion_cloud.records.models import Project, StorageConnection, User
from scipion_cloud.storage import Kind, Storage, open_storage
from scipion_cloud.storage.kinds import StorageKind, kind_of
from scipion_cloud.storage.onedata import list_spaces
from scipion_cloud.storage.retrying import Patience, Retrying
from scipion_cloud.storage.sealing import Sealer
from scipion_cloud.storage.selftest import selftest
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.layout import SERVICE
from scipion_cloud.sync.lease import look
from scipion_cloud.sync.legacy import Legacy, inspect
from scipion_cloud.sync.lock_info import LockInfo
from scipion_cloud.sync.repository import Repository

_NEEDED = ("list", "read", "write", "delete")  # findings without which nobody can work
_SHOWN = 500  # folders in the picker
_PATIENCE = Patience(attempts=4, total=15.0)  # while a person waits for the page


def sealer() -> Sealer:
    """What encrypts the credentials of this installation."""
    return Sealer(get_config().storage_key)


def connect_storage(user: User, name: str, url: str, credentials: Mapping[str, str]) -> StorageConnection:
    """Try a storage out and keep it with its credentials, encrypted.

    Raises InvalidInput with messages by field (`name`, `url`, and those of the credentials) or StorageError
    when the storage does not let us do what is needed.
    """
    name, url = " ".join(name.split()), url.strip()
    if not name or not name.isprintable():
        raise InvalidInput(errors={"name": "Give the storage a name, as 'Facility S3'."})
    kind = _kind(url)
    _check_folder(user, kind, url)
    given = {key: value.strip() for key, value in credentials.items() if value.strip()}
    if kind.id == "sftp" and not given.keys() & {"password", "private_key"} and not user.is_superuser:
        # else ssh would sign in with the keys of the service's own account
        raise InvalidInput(errors={"private_key": "Give a private key or a password."})
    with open_storage(url, given, retry=False) as storage:
        findings = selftest(storage)
        broken = [f for f in findings if f.name in _NEEDED and not f.works]
        if broken:
            raise StorageError(" ".join(f.note for f in broken))
        exclusive = any(f.name == "exclusive_create" and f.works for f in findings)
        return StorageConnection.objects.create(
            owner=user,
            name=name[:120],
            kind=kind.id,
            url=storage.url,
            credentials=sealer().seal(given),
            findings=[asdict(f) for f in findings],
            exclusive=exclusive,
            tested=timezone.now(),
        )


def connections_of(user: User) -> list[StorageConnection]:
    """The storages that a person has connected."""
    return list(StorageConnection.objects.filter(owner=user))


def connection_for(user: User, connection_id: UUID | None) -> StorageConnection:
    """A storage of this person. Raises NotFound."""
    found = StorageConnection.objects.filter(owner=user, pk=connection_id).first() if connection_id else None
    if found is None:
        raise NotFound("You have no such storage.")
    return found


def forget_storage(user: User, connection: StorageConnection) -> None:
    """Forget a storage and its credentials; nothing in it changes. Raises Conflict while projects use it."""
    if connection.owner_id != user.pk:
        raise NotFound("You have no such storage.")
    used = Project.objects.filter(storage=connection) | Project.objects.filter(source=connection)
    if used.filter(deleted=None).exists():
        raise Conflict("Projects are kept in this storage; delete them here first, their files stay there.")
    used.update(storage=None, source=None)
    try:
        connection.delete()
    except ProtectedError as e:
        raise Conflict("A project has just begun to use this storage.") from e


def open_folder(connection: StorageConnection, url: str) -> Storage:
    """The storage at `url`, a folder of the connection; patient for some seconds."""
    return Retrying(open_storage(url, sealer().open(connection.credentials), retry=False), _PATIENCE)


def folders_in(connection: StorageConnection, folder: str) -> list[str]:
    """Names of the folders in a folder of a storage, for the picker. Raises InvalidInput, StorageError."""
    with open_folder(connection, connection.url_of(_clean(folder))) as storage:
        names = [
            stat.key
            for stat in storage.children()
            if stat.kind is Kind.FOLDER and stat.key != SERVICE and stat.key.isprintable()
        ]
    return sorted(names, key=str.casefold)[:_SHOWN]


def onedata_spaces(url: str, token: str) -> list[tuple[str, str, list[str]]]:
    """The spaces that a token opens: id, name, Oneproviders. `url` is as onedata://datahub.egi.eu.

    Raises InvalidInput, StorageError.
    """
    kind, parts = _kind(url.strip()), url.strip().split("/")
    if kind.id != "onedata" or not parts[2:3] or not parts[2]:
        raise InvalidInput("Give the address of your Onezone first, as onedata://datahub.egi.eu.")
    if not token.strip():
        raise InvalidInput("Give your access token first.")
    return list_spaces("/".join(parts[:3]), {"token": token.strip()})


@dataclass(frozen=True)
class Place:
    """A folder of a storage."""

    connection: StorageConnection
    folder: str  # "" for the root

    @property
    def url(self) -> str:
        """Where it is. Raises InvalidInput for a folder that cannot be one."""
        return self.connection.url_of(_clean(self.folder))


@dataclass(frozen=True)
class Contents:
    """What lies in a folder that a project is to be kept in."""

    url: str
    generation: Generation | None = None  # a project of ours
    lock: LockInfo | None = None  # who had or has it open
    legacy: Legacy | None = None  # a project that Scipion or a predecessor left
    is_empty: bool = False


def look_inside(connection: StorageConnection, folder: str) -> Contents:
    """What lies in a folder of a storage. Raises InvalidInput, StorageError."""
    url = connection.url_of(_clean(folder))
    with open_folder(connection, url) as storage:
        if (generation := Repository(storage).latest()) is not None:
            return Contents(url, generation=generation, lock=look(storage))
        if (legacy := inspect(storage)) is not None and legacy.is_project:
            return Contents(url, legacy=legacy)
        return Contents(url, is_empty=not any(stat.key != SERVICE for stat in storage.children()))


def _kind(url: str) -> StorageKind:
    kind = kind_of(url.partition("://")[0])
    if kind is None:
        raise InvalidInput(
            errors={"url": "Begin the address with s3+https://, sftp://, davs:// or onedata://."}
        )
    return kind


def _check_folder(user: User, kind: StorageKind, url: str) -> None:
    """Folders of this machine are lent by its operator only."""
    if kind.id != "posix" or user.is_superuser:
        return
    path = Path(unquote(urlsplit(url).path)).resolve()
    if not any(path.is_relative_to(folder.resolve()) for folder in get_config().folders):
        raise InvalidInput(
            errors={
                "url": "Folders of this machine can be used only below those that its operator has named in "
                "the setting 'folders'."
            }
        )


def _clean(folder: str) -> str:
    parts = [part for part in folder.split("/") if part]
    if any(part in (".", "..") or not part.isprintable() for part in parts):
        raise InvalidInput(errors={"folder": "Give a folder by its path in the storage, without '..'."})
    return "/".join(parts)
