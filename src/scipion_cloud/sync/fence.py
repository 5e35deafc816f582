"""What a writer needs of its lease."""

from typing import Protocol


class Fence(Protocol):
    """The right to change a project, as long as it lasts. `lease.Lease` is one."""

    @property
    def epoch(self) -> int:
        """Which lease of the project this is; of two writers the one with the higher epoch is right."""
        ...

    @property
    def deployment(self) -> str:
        """The deployment that holds it."""
        ...

    @property
    def host(self) -> str:
        """Where that runs."""
        ...

    @property
    def user(self) -> str:
        """Whose it is."""
        ...

    def check(self) -> None:
        """Raise LeaseLost if it may have ended by the local clock; cheap enough for every file."""
        ...

    def confirm(self) -> None:
        """Raise LeaseLost unless the storage says that it is still held."""
        ...
