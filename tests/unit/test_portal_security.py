"""What an attacker tries first, against a real server: headers, bodies, origins, cookies, throttles, logs."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from scipion_cloud.portal.logs import WithoutSecrets
from upload_site import Site

PASSWORD = "a-Long-password-1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site.prepare(tmp_path_factory.mktemp("home"))
    site.start()
    yield site
    site.stop()


@pytest.fixture
def untired(site: Site) -> Iterator[None]:
    """Attempts of other tests do not count, nor do those of this one for others."""
    forget = "from django.core.cache import cache; cache.clear()"
    site.in_django(forget)
    yield
    site.in_django(forget)


@contextmanager
def page(site: Site, person: str = "") -> Iterator[httpx.Client]:
    """A browser, signed in by its session, with the token against forgery."""
    cookies = {"csrftoken": "x" * 32} | ({"sessionid": site.sessions[person]} if person else {})
    headers = {"X-CSRFToken": "x" * 32, "Origin": site.url}
    with httpx.Client(base_url=site.url, timeout=30, cookies=cookies, headers=headers) as client:
        yield client


def sign_in(site: Site, email: str, password: str = PASSWORD, **more: str) -> httpx.Response:
    with page(site) as client:
        return client.post("/accounts/login/", data={"login": email, "password": password, **more})


def post(site: Site, path: str, person: str = "", **data: str) -> httpx.Response:
    with page(site, person) as client:
        return client.post(path, data=data)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/accounts/login/"),
        ("GET", "/nothing/here"),
        ("GET", "/%ff%fe"),
        ("GET", "/healthz"),
        ("GET", "/static/css/site.css"),
        ("GET", "/static/nothing.css"),
        ("POST", "/static/css/site.css"),
        ("GET", "/api/v1/projects"),
        ("GET", "/api/v1/openapi.json"),
        ("POST", "/accounts/login/"),  # without the token against forgery
        ("DELETE", "/new/"),
        ("OPTIONS", "{tus}"),
        ("PUT", "{tus}"),
        ("POST", "{tus}"),
        ("GET", "/projects/00000000-0000-0000-0000-000000000000/desktop/"),
    ],
)
def test_the_policy_is_on_every_answer(site: Site, method: str, path: str) -> None:
    answer = httpx.request(method, site.url + path.format(tus=f"/projects/{site.project}/tus"))
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    if "html" in answer.headers.get("Content-Type", ""):
        assert not re.search(r"<style|<script(?! src)|\son\w+=|\sstyle=", answer.text)


def test_another_host_gets_nothing_and_the_policy(site: Site) -> None:
    answer = httpx.get(site.url, headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert "Content-Security-Policy" in answer.headers


@pytest.mark.parametrize("path", ["/accounts/login/", "/api/v1/login", "/new/"])
def test_a_large_body_is_refused_before_it_is_stored(site: Site, path: str) -> None:
    for files in ({"file": b"x" * (9 * 2**20)}, None):
        content = None if files else b"x" * (9 * 2**20)
        answer = httpx.post(site.url + path, files=files, content=content)
        assert answer.status_code == 413
        assert "larger than the 8 MiB" in answer.text
        assert "Content-Security-Policy" in answer.headers


def test_a_large_body_without_a_length_is_cut(site: Site) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 2**20

    answer = httpx.post(site.url + "/api/v1/login", content=pieces())
    assert answer.status_code == 413
    assert "8 MiB" in answer.json()["detail"]


def test_a_body_that_just_fits_is_read(site: Site) -> None:
    body = json.dumps({"link": "x" * (8 * 2**20 - 100)})
    answer = httpx.post(
        site.url + "/api/v1/login", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 401


@pytest.mark.parametrize("authorization", ["Basic x", "bearer", "", "Negotiate"])
def test_only_a_token_makes_the_origin_unimportant(site: Site, authorization: str) -> None:
    headers = {
        "Origin": "https://evil.example",
        "Authorization": authorization,
        "Tus-Resumable": "1.0.0",
        "Upload-Length": "0",
        "Upload-Metadata": "filename eA==",
        "Cookie": f"sessionid={site.sessions['owner']}",
    }
    assert httpx.post(site.tus, headers=headers).status_code == 403


def test_another_method_hides_in_a_post_only(site: Site) -> None:
    address = f"{site.tus}/00000000-0000-0000-0000-000000000000"
    headers = {
        "Tus-Resumable": "1.0.0",
        "X-HTTP-Method-Override": "DELETE",
        "Cookie": f"sessionid={site.sessions['owner']}",
    }
    ours = httpx.head(address, headers=headers)
    theirs = httpx.post(address, headers={**headers, "Origin": "https://evil.example"})
    assert (ours.status_code, theirs.status_code) == (404, 403)


def test_other_cookies_of_the_same_host_do_not_hide_ours(site: Site) -> None:
    cookies = f'pref{{x}}={{"a": 1}}; sessionid={site.sessions["owner"]}'
    headers = {"Tus-Resumable": "1.0.0", "Cookie": cookies, "Origin": site.url, "Upload-Length": "0"}
    answer = httpx.post(site.tus, headers={**headers, "Upload-Metadata": "filename Y29va2ll"})
    assert answer.status_code == 201, answer.text


def test_a_cookie_alone_changes_nothing(site: Site) -> None:
    cookies = {"sessionid": site.sessions["owner"]}
    pages = ["/new/", f"/projects/{site.project}/delete/", "/account/tokens/", "/people/"]
    for path in [*pages, "/api/v1/projects", f"/projects/{site.project}/data/plan/"]:
        answer = httpx.post(site.url + path, json={"name": "x"}, cookies=cookies)
        assert answer.status_code == 403, path
    assert site.in_django("print(project.deleted)") == "None"


def test_a_token_counts_alone(site: Site) -> None:
    headers = {"Authorization": "Bearer wrong", "Cookie": f"sessionid={site.sessions['owner']}"}
    assert httpx.get(site.url + "/api/v1/me", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:x"]
)
def test_signing_in_leads_nowhere_else(site: Site, target: str) -> None:
    with page(site, "owner") as client:
        already = client.get("/accounts/login/", params={"next": target})
    for answer in (already, sign_in(site, "owner@example.org", next=target)):
        assert (answer.status_code, answer.headers["Location"]) == (302, "/")


def test_signing_in_gives_a_fresh_session(site: Site) -> None:
    with page(site) as client:
        client.cookies.set("sessionid", "0123456789abcdef0123456789abcdef")
        answer = client.post("/accounts/login/", data={"login": "owner@example.org", "password": PASSWORD})
    assert answer.status_code == 302
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("sessionid="))
    assert "0123456789abcdef" not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_attempts_to_sign_in_are_limited_whatever_the_sender_claims_to_be(site: Site, untired: None) -> None:
    seen = []
    with page(site) as client:
        for number in range(8):
            forged = {"X-Forwarded-For": f"10.0.0.{number}", "X-Real-IP": f"10.0.1.{number}"}
            data = {"login": "viewer@example.org", "password": "wrong"}
            seen.append(client.post("/accounts/login/", data=data, headers=forged).status_code)
    right = sign_in(site, "viewer@example.org")
    by_api = httpx.post(
        site.url + "/api/v1/login", json={"email": "viewer@example.org", "password": PASSWORD}
    )
    assert 302 not in [*seen, right.status_code]
    assert by_api.status_code == 429
    assert sign_in(site, "owner@example.org").status_code == 302, "others are not locked out"


def test_who_has_an_account_is_not_told(site: Site) -> None:
    known, unknown = (sign_in(site, f"{name}@example.org", "wrong") for name in ("owner", "somebody.else"))
    hide = re.compile(r"[\w.]+@example.org|[A-Za-z0-9]{64}")
    assert known.status_code == unknown.status_code
    assert hide.sub("", known.text) == hide.sub("", unknown.text)


def test_a_closed_account_is_closed_on_every_road(site: Site) -> None:
    made = site.in_django(
        "from scipion_cloud.records.models import ApiToken, SignInLink, User\n"
        f"user = User.objects.create_user('gone', 'gone@example.org', '{PASSWORD}', is_active=False)\n"
        "print(ApiToken.issue(user, 'x'), SignInLink.issue(user))"
    )
    token, link = made.split()
    assert "sessionid" not in sign_in(site, "gone@example.org").cookies
    assert httpx.get(site.url + "/api/v1/me", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert post(site, f"/sign-in/{link}/").status_code == 410
    login = {"email": "gone@example.org", "password": PASSWORD}
    assert httpx.post(site.url + "/api/v1/login", json=login).status_code == 401


def test_looking_at_a_link_does_not_use_it_up(site: Site) -> None:
    link = site.in_django(
        "from scipion_cloud.records.models import SignInLink; print(SignInLink.issue(user))"
    )
    with page(site) as client:
        for method in ("GET", "GET"):
            answer = client.request(method, f"/sign-in/{link}/")
            assert answer.status_code == 200
            assert "sessionid" not in answer.cookies
            assert "no-store" in answer.headers["Cache-Control"]
        assert client.head(f"/sign-in/{link}/").status_code == 405
        assert client.post(f"/sign-in/{link}/").status_code == 302
    assert post(site, f"/sign-in/{link}/").status_code == 410


def test_an_expired_token_is_none(site: Site) -> None:
    token = site.in_django(
        "from datetime import UTC, datetime; from scipion_cloud.records.models import ApiToken\n"
        "print(ApiToken.issue(user, 'old'))\n"
        "ApiToken.objects.filter(name='old').update(expires=datetime(2020, 1, 1, tzinfo=UTC))"
    )
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(site.url + "/api/v1/me", headers=headers).status_code == 401
    assert (
        httpx.head(f"{site.tus}/{site.project}", headers=headers | {"Tus-Resumable": "1.0.0"}).status_code
        == 404
    )


def test_nobody_takes_another_persons_address(site: Site) -> None:
    answer = post(site, "/account/", "viewer", full_name="V", email="boss@example.org")
    assert answer.status_code == 302
    emails = site.in_django(
        "from scipion_cloud.records.models import User\n"
        "print(list(User.objects.values_list('email', flat=True)))"
    )
    assert "boss@" not in emails
    assert "viewer@example.org" in emails
    assert post(site, "/account/", "viewer", full_name="Vi").status_code == 302
    assert "Vi" in site.in_django(
        "from scipion_cloud.records.models import User; print(User.objects.get(username='viewer').full_name)"
    )


def test_people_are_managed_by_administrators_only(site: Site) -> None:
    with page(site, "owner") as client:
        assert client.get("/people/").status_code == 403
        assert client.post("/people/", data={"email": "new@example.org"}).status_code == 403
        assert client.post("/people/1/link/").status_code == 403


def test_a_refused_form_says_why_in_our_own_page(site: Site) -> None:
    answer = httpx.post(site.url + "/accounts/login/", data={"login": "x"})
    assert answer.status_code == 403
    assert "Go back, reload the page" in answer.text
    assert "/static/css/site.css" in answer.text


@pytest.mark.parametrize(
    "record",
    [
        logging.LogRecord("x", 30, "x", 1, "Forbidden (%s): %s", ("CSRF", "/sign-in/abc-DEF_1/"), None),
        logging.LogRecord("x", 30, "x", 1, "Gone: /sign-in/abc-DEF_1/?a=b", (), None),
    ],
)
def test_a_link_does_not_stand_in_the_log(record: logging.LogRecord) -> None:
    assert WithoutSecrets().filter(record)
    assert "/sign-in/..." in record.getMessage()
    assert "abc" not in record.getMessage()


def test_the_log_of_the_server_has_no_secrets(tmp_path: Path) -> None:
    """Also those of requests that were refused before anybody looked at them."""
    site = Site.prepare(tmp_path)
    log = tmp_path / "portal.log"
    with log.open("wb") as stream:
        kept = os.dup(2)
        os.dup2(stream.fileno(), 2)
        try:
            site.start()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        try:
            for method in ("POST", "PUT", "DELETE"):
                httpx.request(method, site.url + "/sign-in/abcSECRETdef/")
            post(site, "/sign-in/abcSECRETdef/")
            sign_in(site, "owner@example.org", "hunter2SECRET")
            httpx.get(site.url + "/api/v1/me", headers={"Authorization": "Bearer SECRET"})
        finally:
            site.stop()
    assert "/sign-in/..." in log.read_text()
    assert "SECRET" not in log.read_text()


def test_a_project_that_was_deleted_is_not_made_again_on_disk(site: Site) -> None:
    headers = site.headers()
    made = httpx.post(
        site.url + "/api/v1/projects/" + site.project + "/uploads/plan",
        headers=headers,
        json={"files": [{"path": "late.mrc", "size": 6}]},
    ).json()["files"][0]["id"]
    address = f"/projects/{site.project}/tus/{made}"
    with socket.create_connection(("127.0.0.1", site.port)) as connection:
        lines = [
            f"PATCH {address} HTTP/1.1",
            "Host: localhost",
            "Upload-Offset: 0",
            "Content-Length: 6",
            "Content-Type: application/offset+octet-stream",
            *(f"{k}: {v}" for k, v in headers.items()),
        ]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + b"abc")
        while sum(site.parts().values()) < 3:
            pass
        moved = site.data.parent.with_name("away")
        site.data.parent.rename(moved)
        site.in_django("from django.utils import timezone; project.deleted = timezone.now(); project.save()")
        try:
            connection.sendall(b"def")
            answer = connection.recv(4096).decode()
        finally:
            site.in_django("type(project).objects.update(deleted=None)")
        assert " 404 " in answer.splitlines()[0], answer
        assert not site.data.parent.exists()
        moved.rename(site.data.parent)


def test_a_member_who_was_sent_away_meanwhile_finishes_nothing(site: Site) -> None:
    change = "from scipion_cloud.records.models import Membership; Membership.objects.update(role='{}')"
    site.in_django(change.format("editor"))
    headers = site.headers("viewer")
    plan = {"files": [{"path": "mine.mrc", "size": 6}]}
    made = httpx.post(f"{site.url}/api/v1/projects/{site.project}/uploads/plan", headers=headers, json=plan)
    address = f"/projects/{site.project}/tus/{made.json()['files'][0]['id']}"
    with socket.create_connection(("127.0.0.1", site.port)) as connection:
        lines = [
            f"PATCH {address} HTTP/1.1",
            "Host: localhost",
            "Upload-Offset: 0",
            "Content-Length: 6",
            "Content-Type: application/offset+octet-stream",
            *(f"{k}: {v}" for k, v in headers.items()),
        ]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + b"abc")
        while made.json()["files"][0]["id"].replace("-", "") not in site.parts():
            pass
        site.in_django(change.format("viewer"))
        connection.sendall(b"def")
        assert " 403 " in connection.recv(4096).decode().splitlines()[0]
    assert not (site.data / "mine.mrc").exists()


def prepare(home: Path, **env: str) -> str:
    """What `up` is told when it prepares this home; that must fail."""
    command = [sys.executable, "-m", "scipion_cloud.cli.prepare"]
    environ = os.environ | {"SCIPION_CLOUD_HOME": str(home)} | env
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_home_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "secret-key").mkdir()
    assert "secret-key cannot be read" in prepare(tmp_path)
    (tmp_path / "secret-key").rmdir()
    (tmp_path / "secret-key").touch()
    assert "secret-key is empty" in prepare(tmp_path)
    (tmp_path / "secret-key").unlink()
    (tmp_path / "db.sqlite3").write_bytes(os.urandom(5000))
    assert "put a backup in its place" in prepare(tmp_path)
    assert (tmp_path / "secret-key").stat().st_mode & 0o777 == 0o600


def test_a_password_in_the_configuration_is_not_repeated(tmp_path: Path) -> None:
    told = prepare(tmp_path, SCIPION_CLOUD_DATABASE="postgresql://me:hunter2@127.0.0.1:1/db")
    assert "cannot be used" in told
    assert "hunter2" not in told


def test_behind_tls_cookies_travel_with_tls_only(tmp_path: Path) -> None:
    names = "SESSION_COOKIE_SECURE CSRF_COOKIE_SECURE SESSION_COOKIE_HTTPONLY SECURE_HSTS_SECONDS"
    code = f"from django.conf import settings as s; print(*(bool(getattr(s, n)) for n in {names.split()}))"
    told = {}
    for url in ("https://cloud.example.org", "http://cloud.example.org"):
        environ = os.environ | {
            "SCIPION_CLOUD_HOME": str(tmp_path),
            "SCIPION_CLOUD_PUBLIC_URL": url,
            "DJANGO_SETTINGS_MODULE": "scipion_cloud.portal.settings",
        }
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
        told[url.partition(":")[0]] = done.stdout.split()
    assert told == {"https": ["True"] * 4, "http": ["False", "False", "True", "False"]}
