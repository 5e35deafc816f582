"""The first administrator's link and the demo."""

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from scipion_cloud.config import Config
from scipion_cloud.errors import InvalidInput
from scipion_cloud.portal import demo
from scipion_cloud.portal.administrator import first_administrator
from scipion_cloud.records.models import Project, Run, SignInLink, User

pytestmark = pytest.mark.django_db


def printed(command: str, *args: str) -> str:
    out = StringIO()
    call_command(command, *args, stdout=out)
    return out.getvalue()


def test_the_first_administrator_is_made_and_comes_in_once(config: Config) -> None:
    text = printed("admin_link")
    assert text.startswith(f"{config.url}/sign-in/")
    assert text.count("\n") == 1
    secret = text.strip().rstrip("/").rpartition("/")[2]
    user = SignInLink.redeem(secret)
    assert user is not None
    assert (user.username, user.email, user.is_superuser) == ("admin", "admin@localhost", True)
    assert not user.has_usable_password()
    assert SignInLink.redeem(secret) is None


def test_another_link_is_for_the_same_administrator() -> None:
    printed("admin_link", "--email", "head@lab.org")
    printed("admin_link", "--email", "other@lab.org")
    assert list(User.objects.values_list("email", flat=True)) == ["head@lab.org"]


def test_if_unused_prints_nothing_once_an_administrator_has_been_here() -> None:
    assert printed("admin_link", "--if-unused")
    assert printed("admin_link", "--if-unused"), "nobody has signed in yet"
    User.objects.update(last_login=timezone.now())
    assert printed("admin_link", "--if-unused") == ""
    assert printed("admin_link") != ""


def test_nobody_becomes_administrator_by_an_address() -> None:
    User.objects.create_user(username="someone", email="admin@localhost")
    with pytest.raises(InvalidInput, match="--email"):
        first_administrator()
    assert first_administrator("head@lab.org").is_superuser


def test_the_demo_is_made_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def create_project(user: User, name: str, description: str, *, demo: bool) -> Project:
        assert demo
        made.append(name)
        return Project.objects.create(name=name, owner=user, folder=f"demo-{len(made)}")

    def start_run(user: User, project: Project, tool: str, values: dict[str, Any], *, label: str) -> Run:
        return Run.objects.create(user=user, project=project, tool=tool, parameters=values, label=label)

    monkeypatch.setattr(demo.services, "create_project", create_project)
    monkeypatch.setattr(demo.services, "start_run", start_run)
    first = printed("demo")
    run = Run.objects.get()
    assert first == f"{config.url}/projects/{run.project_id}/runs/{run.pk}/\n"
    assert printed("demo") == first
    Project.objects.update(deleted=timezone.now())
    assert printed("demo") != first, "a deleted demo can be had again"
    assert made == [demo.NAME] * 2
