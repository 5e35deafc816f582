"""A person's own page: name, password, tokens; and the page behind a sign-in link."""

from typing import cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import PasswordChangeForm, SetPasswordForm
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from scipion_cloud.records.models import ApiToken, SignInLink, User


@never_cache
@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest, secret: str) -> HttpResponse:
    """Ask on GET, sign in on POST: a preview of the link by a mail program must not use it up."""
    if request.method == "GET":
        return render(request, "account/sign_in_link.html")
    user = SignInLink.redeem(secret)
    if user is None:
        return render(request, "account/sign_in_link.html", {"refused": True}, status=410)
    login(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    return redirect("projects" if user.has_usable_password() else "account")


@login_required
@require_http_methods(["GET", "POST"])
def show(request: HttpRequest) -> HttpResponse:
    """Show the account; take a new name, e-mail or password."""
    user = cast(User, request.user)
    make_form = PasswordChangeForm if user.has_usable_password() else SetPasswordForm
    form = make_form(user)
    if request.method == "POST" and "new_password1" in request.POST:
        form = make_form(user, request.POST)
        if form.is_valid():
            form.save()
            update_session_auth_hash(request, user)
            messages.success(request, "Your password has been set.")
            return redirect("account")
    elif request.method == "POST":
        error = _rename(user, request.POST.get("full_name", ""), request.POST.get("email", user.email))
        if error:
            messages.error(request, error)
        else:
            messages.success(request, "Saved.")
        return redirect("account")
    return render(
        request, "account/show.html", {"form": form, "tokens": user.api_tokens.order_by("-created")}
    )


def _rename(user: User, full_name: str, email: str) -> str:
    """Store a name and an address; returns what is wrong with them, or nothing.

    Only administrators change their address: nobody checks that it is theirs, and people are let into
    projects by it.
    """
    email = email.strip().lower()
    if email != user.email.lower() and not user.is_staff:
        return "Others know you by your address; ask an administrator to invite the new one."
    user.full_name, user.email = "".join(filter(str.isprintable, full_name)).strip()[:200], email
    try:
        validate_email(email)
    except ValidationError:
        return "That is not an e-mail address."
    if User.objects.exclude(pk=user.pk).filter(email__iexact=user.email).exists():
        return "Another account has this e-mail address."
    user.save(update_fields=["full_name", "email"])
    return ""


@login_required
@never_cache
@require_POST
def create_token(request: HttpRequest) -> HttpResponse:
    """Make an API token and show it this once."""
    user = cast(User, request.user)
    secret = ApiToken.issue(user, request.POST.get("name", "").replace("\0", "").strip()[:100] or "token")
    return render(request, "account/token.html", {"secret": secret})


@login_required
@require_POST
def revoke_token(request: HttpRequest, token_id: int) -> HttpResponse:
    """End one of the user's own tokens."""
    ApiToken.objects.filter(pk=token_id, user=cast(User, request.user)).delete()
    messages.success(request, "The token has been revoked.")
    return redirect("account")
