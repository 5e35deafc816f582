"""One saved state of a project, without its files."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Self

from scipion_cloud.errors import SyncError


@dataclass(frozen=True, slots=True)
class Generation:
    """What the header of a generation tells."""

    number: int  # from 1 on
    parent: int | None  # the generation that it was made from
    epoch: int  # of the lease under which it was made
    created: datetime  # UTC, by the clock of the host that made it
    deployment: str
    host: str
    user: str
    note: str
    files: int
    bytes: int  # of all files together
    save: str = ""  # the save that made it
    void: bool = False  # no generation: `save` was rolled back, and must not be committed under this number

    def header(self) -> dict[str, Any]:
        """What is written of it."""
        return asdict(self)

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> Self:
        """The generation of a header that was read. Raises SyncError if it is none."""
        try:
            made = cls(**{field.name: header[field.name] for field in fields(cls) if field.name in header})
            whole = made.number > 0 and (made.parent is None or 0 < made.parent < made.number)
            if not whole or made.created.utcoffset() is None:
                raise ValueError("not as it is written")
        except (AttributeError, TypeError, ValueError) as e:
            raise SyncError("The header of a generation is not one; the generation is damaged.") from e
        return made
