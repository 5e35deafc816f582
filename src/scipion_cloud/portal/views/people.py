"""Administrators invite people and give them sign-in links."""

from typing import cast

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from scipion_cloud.config import get_config
from scipion_cloud.errors import InvalidInput
from scipion_cloud.portal.services import invite
from scipion_cloud.records.models import SignInLink, User


def _require_staff(request: HttpRequest) -> None:
    if not cast(User, request.user).is_staff:
        raise PermissionDenied("Only administrators manage people.")


@login_required
@never_cache
@require_http_methods(["GET", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """Everybody, and a field to invite one more."""
    _require_staff(request)
    new_link = error = ""
    if request.method == "POST":
        try:
            new_link = invite(request.POST.get("email", ""))
        except InvalidInput as e:
            error = str(e)
    people = User.objects.order_by("email")
    return render(request, "people/index.html", {"people": people, "new_link": new_link, "error": error})


@login_required
@never_cache
@require_POST
def link(request: HttpRequest, user_id: int) -> HttpResponse:
    """A fresh sign-in link for somebody who lost the password."""
    _require_staff(request)
    user = get_object_or_404(User, pk=user_id, is_active=True)
    new_link = get_config().url + reverse("sign-in", args=[SignInLink.issue(user)])
    people = User.objects.order_by("email")
    return render(request, "people/index.html", {"people": people, "new_link": new_link, "error": ""})
