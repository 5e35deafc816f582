"""Django's database settings from one line of the configuration."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from scipion_cloud.errors import ConfigError


def database_settings(url: str, home: Path) -> dict[str, Any]:
    """Settings for SQLite (`sqlite`) or PostgreSQL (`postgresql://user:password@host:port/name`).

    A PostgreSQL socket folder is given as `postgresql:///name?host=/folder`. Raises ConfigError.
    """
    if url == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": home / "db.sqlite3",
            "OPTIONS": {
                # a write transaction takes its lock at the start: two writers queue instead of failing
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres") or not parts.path.strip("/"):
        raise ConfigError("database must be 'sqlite' or postgresql://user:password@host:port/name")
    query = parse_qs(parts.query)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or query.get("user", [""])[0]),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or query.get("host", [""])[0],
        "PORT": parts.port or query.get("port", [""])[0],
        # the portal's threads come and go: connections kept by each would soon be all that the server has
        "CONN_MAX_AGE": 0,
    }
