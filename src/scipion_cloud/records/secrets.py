"""Secrets that are shown once and kept only as a digest."""

import hashlib
import secrets


def new_secret() -> str:
    """A fresh URL-safe secret with 256 bits of entropy."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """SHA-256 of a secret in hex. The secrets are random and long, so a slow hash would add nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()
