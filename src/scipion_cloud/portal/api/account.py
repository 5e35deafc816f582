"""Signing in and out."""

from allauth.account.adapter import get_adapter
from allauth.core import ratelimit
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from ninja import Router, Status
from ninja.errors import HttpError

from scipion_cloud.portal.api.auth import ApiRequest, bearer_of
from scipion_cloud.portal.api.problems import PROBLEMS
from scipion_cloud.portal.api.schemas import Login, Me, Token
from scipion_cloud.records.models import ApiToken, SignInLink, User
from scipion_cloud.records.secrets import digest

router = Router(tags=["account"])


@router.post("/login", auth=None, response={200: Token, **PROBLEMS}, summary="Sign in")
def login(request: HttpRequest, data: Login) -> Token:
    """Give a token that is valid for 90 days. Attempts are limited as on the sign-in page."""
    if not ratelimit.consume(request, action="login"):
        raise HttpError(429, "Too many attempts to sign in; wait a minute.")
    user = SignInLink.redeem(data.link) if data.link else _by_password(request, data.email, data.password)
    if user is None:
        raise HttpError(
            401, "The link has been used or is too old." if data.link else "Wrong e-mail or password."
        )
    secret = ApiToken.issue(user, data.name)
    return Token(token=secret, expires=ApiToken.objects.get(digest=digest(secret)).expires)


def _by_password(request: HttpRequest, email: str, password: str) -> User | None:
    """The active user, with the limits of the form; an unknown address takes as long as a wrong password."""
    try:
        user: User | None = get_adapter(request).authenticate(request, email=email.strip(), password=password)
    except ValidationError as e:
        raise HttpError(429, "Too many failed attempts to sign in; wait five minutes.") from e
    return user if user is not None and user.is_active else None


@router.post("/logout", response={204: None, **PROBLEMS}, summary="Sign out")
def logout(request: ApiRequest) -> Status[None]:
    """End the token that the request carries."""
    token = bearer_of(request)
    if not token:
        raise HttpError(422, "This ends an API token; the page's own sign-out ends a session.")
    ApiToken.objects.filter(digest=digest(token)).delete()
    return Status(204, None)


@router.get("/me", response={200: Me, **PROBLEMS}, summary="Who am I")
def me(request: ApiRequest) -> Me:
    """The person whose token or session it is."""
    user = request.auth
    return Me(id=user.pk, email=user.email, name=str(user), administrator=user.is_staff)
