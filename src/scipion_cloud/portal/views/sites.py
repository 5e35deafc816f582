"""The operators' pages of the sites: where jobs can run, and how it is there now."""

from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.dateparse import parse_datetime
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from scipion_cloud.portal import services
from scipion_cloud.portal.elastic_view import ElasticView
from scipion_cloud.portal.site_view import SiteView
from scipion_cloud.records.models import User


@login_required
@never_cache
@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """All sites; for HTMX only the part that changes."""
    return render(request, "sites/cards.html" if _is_part(request) else "sites/index.html", _all(request))


@login_required
@never_cache
@require_GET
def show(request: HttpRequest, name: str) -> HttpResponse:
    """One site; for HTMX only the part that changes."""
    return render(request, "sites/live.html" if _is_part(request) else "sites/show.html", _one(request, name))


@login_required
@require_POST
def drain(request: HttpRequest, name: str) -> HttpResponse:
    """Let it take no new jobs."""
    now = services.drain_site(_user(request), name, request.POST.get("reason", ""))
    messages.success(request, f"{now.site.label} takes no new jobs. What runs there goes on.")
    return redirect("site", name)


@login_required
@require_POST
def resume(request: HttpRequest, name: str) -> HttpResponse:
    """Let it take jobs again."""
    now = services.resume_site(_user(request), name)
    messages.success(request, f"{now.site.label} takes jobs.")
    return redirect("site", name)


def _all(request: HttpRequest) -> dict[str, Any]:
    user = _user(request)
    views = [SiteView(now) for now in services.all_sites(user)]
    return {"sites": views, **_common(user)}


def _one(request: HttpRequest, name: str) -> dict[str, Any]:
    user = _user(request)
    view = SiteView(services.one_site(user, name))
    tested = view.now.tested or {}
    return {
        "view": view,
        "all_nodes": "nodes" in request.GET,
        **_common(user),
        "tested": tested,
        "tested_when": parse_datetime(tested["when"]) if tested else None,
    }


def _common(user: User) -> dict[str, Any]:
    elastic = ElasticView.of(services.elastic_nodes(user))
    return {"currency": services.currency(user), "elastic": elastic}


def _is_part(request: HttpRequest) -> bool:
    return "HX-Request" in request.headers


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)
