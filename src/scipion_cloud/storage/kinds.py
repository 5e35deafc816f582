"""The kinds of storage: how their URLs look, and what a person has to give to be let in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Credential:
    """One thing that a kind of storage asks for; a field of the form in which people connect one."""

    name: str
    label: str
    secret: bool = True
    required: bool = False
    multiline: bool = False
    help: str = ""


@dataclass(frozen=True)
class StorageKind:
    """A kind of storage, as people choose it."""

    id: str
    label: str
    schemes: tuple[str, ...]
    example: str  # a URL
    help: str
    credentials: tuple[Credential, ...] = ()


KINDS: tuple[StorageKind, ...] = (
    StorageKind(
        "posix",
        "Folder",
        ("file",),
        "file:///data/projects/apoferritin",
        "A folder of this machine, or of a file system that is mounted on it.",
    ),
    StorageKind(
        "s3",
        "S3",
        ("s3", "s3+https", "s3+http"),
        "s3+https://s3.example.org/bucket/apoferritin",
        "A bucket, or a folder in one: Ceph, MinIO, AWS and others. s3://bucket/folder is at AWS.",
        (
            Credential("access_key", "Access key", secret=False, required=True),
            Credential("secret_key", "Secret key", required=True),
            Credential("session_token", "Session token", help="Only for temporary credentials."),
            Credential("region", "Region", secret=False, help="us-east-1 if the provider names none."),
        ),
    ),
    StorageKind(
        "sftp",
        "SFTP",
        ("sftp",),
        "sftp://user@server.example.org/home/user/apoferritin",
        "A folder on a server that you reach with ssh.",
        (
            Credential("password", "Password"),
            Credential("private_key", "Private key", multiline=True, help="OpenSSH or PEM."),
            Credential("passphrase", "Passphrase of the key"),
            Credential(
                "host_key",
                "Host key",
                secret=False,
                multiline=True,
                help="A line 'ssh-ed25519 AAAA...' as ssh-keyscan prints it; the known hosts of the account "
                "that runs this service otherwise.",
            ),
        ),
    ),
    StorageKind(
        "webdav",
        "WebDAV",
        ("davs", "dav"),
        "davs://cloud.example.org/remote.php/dav/files/user/apoferritin",
        "Nextcloud, dCache, nginx and others.",
        (
            Credential("user", "User", secret=False),
            Credential("password", "Password"),
            Credential("token", "Bearer token", help="Instead of user and password."),
        ),
    ),
    StorageKind(
        "onedata",
        "Onedata",
        ("onedata", "onedata+http"),
        "onedata://datahub.egi.eu/space/apoferritin",
        "A space of EGI DataHub or another Onezone, or a folder in one. onedata+http:// is without TLS.",
        (
            Credential("token", "Access token", required=True),
            Credential(
                "provider",
                "Oneprovider",
                secret=False,
                help="Its host; the one that the token names if empty.",
            ),
        ),
    ),
)


def kind_of(scheme: str) -> StorageKind | None:
    """The kind that a URL's scheme belongs to."""
    return next((kind for kind in KINDS if scheme in kind.schemes), None)
