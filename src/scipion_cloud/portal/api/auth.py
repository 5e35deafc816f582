"""Who asks: a program with an API token, or a page of the portal with its session cookie and CSRF token."""

from django.http import HttpRequest
from ninja.security import HttpBearer, SessionAuth

from scipion_cloud.records.models import ApiToken, User


class ApiRequest(HttpRequest):
    """A request whose sender is known."""

    auth: User


class Token(HttpBearer):
    """`Authorization: Bearer TOKEN`; `POST /login` gives the token."""

    def authenticate(self, request: HttpRequest, token: str) -> User | None:  # noqa: ARG002
        """The active user whose token it is."""
        return ApiToken.user_of(token.strip())


class Session(SessionAuth):
    """The portal's cookie; what changes something also needs the header `X-CSRFToken`."""

    def __call__(self, request: HttpRequest) -> User | None:
        """The signed-in user, if the request does not carry a token (which alone counts then)."""
        if "Authorization" in request.headers or not request.user.is_authenticated:
            return None
        user: User | None = super().__call__(request)
        return user


def bearer_of(request: HttpRequest) -> str:
    """The token that the request carries; empty if it came with a cookie."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
