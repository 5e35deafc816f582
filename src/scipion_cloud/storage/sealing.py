"""Credentials encrypted at rest."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from scipion_cloud.errors import ConfigError


class Sealer:
    """Seals small mappings of text with the keys in a file: one in each line, the first seals, all open.

    The file is made, private, when something is sealed for the first time. Without it nothing that was sealed
    can be read again: it belongs into the backup, apart from the database.
    """

    def __init__(self, key_file: Path) -> None:
        self._file = key_file

    def seal(self, values: Mapping[str, str]) -> str:
        """The sealed text. Raises ConfigError."""
        if not self._file.exists():
            self._make([Fernet.generate_key().decode()])
        return self._box().encrypt(json.dumps(dict(values)).encode()).decode()

    def open(self, sealed: str) -> dict[str, str]:
        """What was sealed. Raises ConfigError if none of the keys opens it, or the file is missing."""
        try:
            values = json.loads(self._box().decrypt(sealed.strip().encode()))
        except InvalidToken as e:
            raise ConfigError(
                f"No key in {self._file} opens these credentials: they were sealed with another key, or "
                "changed since. Put the right key file back, or enter the credentials again."
            ) from e
        return {str(name): str(value) for name, value in values.items()}

    def rotate(self) -> None:
        """Make a new key, with which is sealed from now on. What was sealed before can still be opened."""
        keys = self._keys() if self._file.exists() else []
        self._make([Fernet.generate_key().decode(), *keys], replace=True)

    def reseal(self, sealed: str) -> str:
        """The same credentials, sealed with the newest key. Raises ConfigError."""
        return self.seal(self.open(sealed))

    def _box(self) -> MultiFernet:
        try:
            return MultiFernet([Fernet(key) for key in self._keys()])
        except ValueError as e:
            raise ConfigError(f"{self._file} does not hold keys. Put the right file back.") from e

    def _keys(self) -> list[str]:
        try:
            if (mode := self._file.stat().st_mode) & 0o077:
                raise ConfigError(
                    f"Others can read the keys in {self._file} (mode {mode & 0o777:o}). "
                    f"Run: chmod 600 {self._file}"
                )
            keys = self._file.read_text().split()
        except FileNotFoundError as e:
            raise ConfigError(
                f"{self._file} is missing, and with it the key to all stored credentials. Put it back from "
                "the backup, or enter the credentials again."
            ) from e
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"The keys in {self._file} cannot be read: {e}.") from e
        if not keys:
            raise ConfigError(f"{self._file} is empty. Put the right file back from the backup.")
        return keys

    def _make(self, keys: list[str], *, replace: bool = False) -> None:
        """Write the file whole and durably; of two that make it at the same time the first wins."""
        temporary = ""
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # made with mode 0600
            fd, temporary = tempfile.mkstemp(prefix=f".{self._file.name}.", dir=self._file.parent)
            with open(fd, "w") as file:  # noqa: PTH123 - a descriptor
                file.write("\n".join(keys) + "\n")
                file.flush()
                os.fsync(file.fileno())
            if replace:
                Path(temporary).replace(self._file)
            else:
                self._file.hardlink_to(temporary)
        except FileExistsError:
            pass  # somebody else's key is as good
        except OSError as e:
            raise ConfigError(f"The key file {self._file} cannot be made: {e.strerror}.") from e
        finally:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
