"""Our own errors, and those of a full disk or a busy database, as readable answers."""

import logging
from collections.abc import Callable

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string

from scipion_cloud.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    QueueFull,
    ScipionCloudError,
    StorageError,
    StorageTransient,
)
from scipion_cloud.portal.troubles import trouble_of

log = logging.getLogger(__name__)

_STATUS = {Conflict: 409, InvalidInput: 422, QueueFull: 503, StorageTransient: 503, StorageError: 502}

View = Callable[[HttpRequest], HttpResponse]


class known_errors:  # noqa: N801 - Django names middleware by its path
    """Shows an error that we raised on purpose with its own words instead of a bare 500."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Django calls this for what a view raised."""
        if isinstance(error, NotFound):
            raise Http404(str(error)) from error
        if isinstance(error, ScipionCloudError):
            status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
            message = str(error)
        elif trouble := trouble_of(error):
            status, message = trouble
            log.error("%s: %s", request.path, error)
        else:
            return None
        if request.headers.get("Accept", "").startswith("application/json"):
            return JsonResponse({"detail": message}, status=status)
        # no request: what surrounds the message would ask the database for the user
        page = render_to_string("error.html", {"message": message}, None if status in (503, 507) else request)
        return HttpResponse(page, status=status)
