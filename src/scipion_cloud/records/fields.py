"""Fields for text that programs wrote: whatever it is made of, it must be possible to keep it."""

from typing import TYPE_CHECKING, Any

from django.db import models

if TYPE_CHECKING:  # only the types' own files know them as generic
    _TextField = models.TextField[str, str]
else:
    _TextField = models.TextField

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable(value: Any) -> Any:
    """`value` with every text in it freed of what PostgreSQL refuses: NUL and half characters."""
    match value:
        case str():
            return value.replace("\0", _REPLACEMENT).encode("utf-8", "replace").decode()
        case dict():
            return {storable(key): storable(part) for key, part in value.items()}
        case list() | tuple():
            return [storable(part) for part in value]
    return value


class LogText(_TextField):
    """Text from a log. In the database it is a TextField."""

    def get_prep_value(self, value: Any) -> Any:
        """Called for everything that is written or compared with."""
        return super().get_prep_value(storable(value))

    def deconstruct(self) -> Any:
        """To migrations it is a TextField."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs


class LogJson(models.JSONField):
    """JSON with texts from logs in it. In the database it is a JSONField."""

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Called for everything that is written."""
        return super().get_db_prep_save(storable(value), connection)

    def deconstruct(self) -> Any:
        """To migrations it is a JSONField."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs
