"""Reads the body of a request."""

from typing import Any

from django.http import HttpRequest
from ninja.parser import Parser

from scipion_cloud.errors import InvalidInput


class TextParser(Parser):
    """JSON whose texts can all be stored and sent back.

    JSON can spell half a character (`"\\ud800"`), which no database, file name or answer can hold.
    """

    def parse_body(self, request: HttpRequest) -> dict[str, Any]:
        """The body's object. Raises InvalidInput for half characters, ValueError for what is no JSON."""
        body = super().parse_body(request)
        if _has_half_characters(body):
            raise InvalidInput("The request holds text that is not valid Unicode; send whole characters.")
        return body


def _has_half_characters(value: object) -> bool:
    match value:
        case str():
            return not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value)
        case dict():
            return any(_has_half_characters(part) for pair in value.items() for part in pair)
        case list():
            return any(map(_has_half_characters, value))
    return False
