"""Errors as answers: always JSON with `detail`, and `errors` by field where the fields are known."""

import logging
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI, Schema
from ninja.errors import AuthenticationError, HttpError, ValidationError
from pydantic import Field

from scipion_cloud.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    ScipionCloudError,
    StorageError,
    StorageTransient,
)
from scipion_cloud.portal.troubles import trouble_of

log = logging.getLogger(__name__)


class Problem(Schema):
    """Why a request was refused, in words for a person."""

    detail: str
    errors: dict[str, str] = Field(default={}, description="Messages by field, where the fields are known.")


PROBLEMS: dict[int, type[Problem]] = dict.fromkeys((401, 403, 404, 409, 422, 429, 502, 503), Problem)

_STATUS: dict[type[ScipionCloudError], int] = {
    InvalidInput: 422,
    NotFound: 404,
    Conflict: 409,
    StorageTransient: 503,
    StorageError: 502,
}


def handle_problems(api: NinjaAPI) -> None:
    """Give every error that the actions raise on purpose its status and its own words."""

    def answer(
        request: HttpRequest, status: int, detail: str, errors: dict[str, str] | None = None
    ) -> HttpResponse:
        return api.create_response(request, {"detail": detail, "errors": errors or {}}, status=status)

    @api.exception_handler(ScipionCloudError)
    def ours(request: HttpRequest, error: ScipionCloudError) -> HttpResponse:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 503)
        return answer(request, status, str(error), getattr(error, "errors", None))

    @api.exception_handler(DatabaseError)
    @api.exception_handler(OSError)
    def machine(request: HttpRequest, error: Exception) -> HttpResponse:
        trouble = trouble_of(error)
        if trouble is None:
            raise error
        log.error("%s: %s", request.path, error)
        return answer(request, *trouble)

    @api.exception_handler(PermissionDenied)
    def denied(request: HttpRequest, error: PermissionDenied) -> HttpResponse:
        return answer(request, 403, str(error) or "You may not do this.")

    @api.exception_handler(Http404)
    def missing(request: HttpRequest, _error: Http404) -> HttpResponse:
        return answer(request, 404, "There is no such thing here.")

    @api.exception_handler(AuthenticationError)
    def stranger(request: HttpRequest, _error: AuthenticationError) -> HttpResponse:
        response = answer(request, 401, "Sign in first: the token is missing, wrong or has expired.")
        response["WWW-Authenticate"] = "Bearer"
        return response

    @api.exception_handler(HttpError)
    def refused(request: HttpRequest, error: HttpError) -> HttpResponse:
        if isinstance(error.__cause__, InvalidInput):  # from our parser, whose words the caller hides
            return ours(request, error.__cause__)
        return answer(request, error.status_code, str(error))

    @api.exception_handler(ValidationError)
    def malformed(request: HttpRequest, error: ValidationError) -> HttpResponse:
        errors = {_field(fault): str(fault["msg"]) for fault in error.errors}
        return answer(request, 422, "; ".join(f"{k}: {v}" for k, v in errors.items()), errors)


def _field(fault: dict[str, Any]) -> str:
    """The name of a field as the sender wrote it: without where it was (body) and our name for the whole."""
    return ".".join(str(part) for part in fault["loc"][2:]) or str(fault["loc"][-1])
