"""Signing in: by password and link, throttled, alike for those who do not exist; by cookie only with CSRF."""

from datetime import timedelta
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from scipion_cloud.records.models import ApiToken, SignInLink


def login(**body: str) -> HttpResponse:
    return Client().post("/api/v1/login", body, content_type="application/json")  # type: ignore[return-value]


def test_a_password_gives_a_token_that_works_until_logout(owner: Any) -> None:
    answer = login(email=" OLGA@example.org ", password="olga's password", name="laptop").json()
    owner.token = answer["token"]
    me = owner.json("GET", "/me")
    assert me == {
        "id": owner.user.pk,
        "email": "olga@example.org",
        "name": "olga@example.org",
        "administrator": False,
    }
    assert ApiToken.objects.filter(user=owner.user, name="laptop").exists()
    owner.json("POST", "/logout", status=204)
    owner.json("GET", "/me", status=401)


def test_a_link_gives_a_token_once(owner: Any) -> None:
    secret = SignInLink.issue(owner.user)
    assert login(link=secret).status_code == 200
    again = login(link=secret)
    assert (again.status_code, again.json()["detail"]) == (401, "The link has been used or is too old.")


def test_wrong_passwords_and_unknown_people_look_alike(owner: Any) -> None:
    owner.user.is_active = False
    owner.user.save()
    answers = [
        login(email="sven@example.org", password="x"),
        login(email="olga@example.org", password="x"),
        login(email="olga@example.org", password="olga's password"),
        login(),
    ]
    assert {(a.status_code, a.content) for a in answers} == {(401, answers[0].content)}


def test_guessing_is_throttled_and_then_the_right_password_is_refused_too(owner: Any) -> None:
    statuses = [login(email="olga@example.org", password=f"guess {n}").status_code for n in range(7)]
    assert statuses == [401] * 5 + [429] * 2
    assert login(email="olga@example.org", password="olga's password").status_code == 429


def test_guessing_links_is_throttled(owner: Any) -> None:
    statuses = [login(link=f"guess-{n}").status_code for n in range(35)]
    assert statuses[:30] == [401] * 30
    assert set(statuses[30:]) == {429}


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer nonsense", "Basic b2xnYTp4", "Bearer \xff"]
)
def test_no_or_a_bad_token_is_401_whatever_the_method(owner: Any, header: str) -> None:
    for method in ("GET", "POST"):
        answer = owner(method, "/projects", {"name": "x"}, Authorization=header)
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
        assert "Sign in" in answer.json()["detail"]


def test_an_expired_token_is_refused(owner: Any) -> None:
    ApiToken.objects.update(expires=timezone.now() - timedelta(seconds=1))
    owner.json("GET", "/me", status=401)


def test_a_cookie_reads_but_changes_nothing_without_csrf(owner: Any, bridge: Any) -> None:
    page = Client(enforce_csrf_checks=True)
    page.force_login(owner.user, backend="django.contrib.auth.backends.ModelBackend")
    assert page.get("/api/v1/me").json()["email"] == "olga@example.org"
    refused = page.post("/api/v1/projects", {"name": "x"}, content_type="application/json")
    assert refused.status_code == 403
    page.cookies["csrftoken"] = "a" * 32
    done = page.post(
        "/api/v1/projects", {"name": "x"}, content_type="application/json", headers={"X-CSRFToken": "a" * 32}
    )
    assert done.status_code == 201
    mixed = page.get("/api/v1/me", headers={"Authorization": "Bearer nonsense"})
    assert mixed.status_code == 401
