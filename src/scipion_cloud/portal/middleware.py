"""What holds for every page: the content security policy, and our own errors as readable answers."""

from collections.abc import Callable

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from scipion_cloud.errors import Conflict, InvalidInput, NotFound, QueueFull, ScipionCloudError

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

_STATUS = {Conflict: 409, InvalidInput: 422, QueueFull: 503}

View = Callable[[HttpRequest], HttpResponse]


def content_security_policy(get_response: View) -> View:
    """Scripts, styles, pictures and connections come from this server only, none of them inline."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", _POLICY)
        return response

    return middleware


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
        if not isinstance(error, ScipionCloudError):
            return None
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
        if request.headers.get("Accept", "").startswith("application/json"):
            return JsonResponse({"detail": str(error)}, status=status)
        return render(request, "error.html", {"message": str(error)}, status=status)
