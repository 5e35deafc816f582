"""Certificates of servers on this machine, and of the authority that gave them; for tests."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)

LASTS = timedelta(days=2)


@dataclass(frozen=True)
class Certificates:
    """Three PEM files."""

    authority: Path  # whom clients have to trust
    server: Path  # of 127.0.0.1
    key: Path  # the server's


def certificates(folder: Path) -> Certificates:
    """Make an authority, and a certificate for 127.0.0.1, in `folder`."""
    ours, servers = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    authority = x509.BasicConstraints(ca=True, path_length=None)
    made = Certificates(folder / "authority.pem", folder / "server.pem", folder / "server.key")
    made.authority.write_bytes(_signed("authority", ours, ours, authority))
    made.server.write_bytes(_signed("server", servers, ours, host))
    made.key.touch(mode=0o600)
    made.key.write_bytes(
        servers.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return made


def _signed(
    name: str, key: EllipticCurvePrivateKey, by: EllipticCurvePrivateKey, extension: x509.ExtensionType
) -> bytes:
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LASTS)
        .not_valid_after(now + LASTS)
        .add_extension(extension, critical=True)
        .sign(by, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
