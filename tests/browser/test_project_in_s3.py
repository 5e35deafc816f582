"""A project that lives in S3: made, worked on, closed, deleted here, and opened again on another machine."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from scipion_cloud.testing.browser import GREEN_BOXES, chromium, watch
from scipion_cloud.testing.servers.radosgw import Radosgw
from scipion_cloud.testing.service import RunningService, running_service

FOLDER = "grid 1"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[RunningService]:
    with running_service(tmp_path / "here") as service:
        yield service


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[RunningService]:
    with running_service(tmp_path / "elsewhere") as service:
        yield service


@pytest.mark.browser
@pytest.mark.scipion
@pytest.mark.desktop
@pytest.mark.timeout(1500)
def test_there_and_back(here: RunningService, elsewhere: RunningService, s3_server: Radosgw) -> None:
    bucket = s3_server.url(s3_server.bucket())
    with chromium() as browser:
        page = browser.new_page(base_url=here.url, viewport={"width": 1280, "height": 860})
        troubles = watch(page)
        sign_in(page, here)
        connect(page, bucket, s3_server)
        create(page)
        align(page)
        before = boxes(page)
        assert len(before) == 2
        save_and_look_at_history(page)
        close(page)
        assert not list((here.home / "projects").glob("*/*")), "nothing of it stays on the first machine"
        delete(page)

        page = browser.new_page(base_url=elsewhere.url, viewport={"width": 1280, "height": 860})
        troubles = troubles + watch(page)
        sign_in(page, elsewhere)
        connect(page, bucket, s3_server)
        adopt_and_open(page)
        assert boxes(page) == before
        (project,) = (elsewhere.home / "projects").glob("*")
        links = [path for path in project.rglob("*") if path.is_symlink()]
        assert links, "Scipion links each movie"
        assert all(link.exists() and project in link.resolve().parents for link in links)
        page.get_by_role("button", name="Open desktop").click()
        expect(page.locator("canvas").first).to_be_visible(timeout=120_000)
        page.wait_for_function(GREEN_BOXES, timeout=240_000)
        assert not troubles


def sign_in(page: Page, service: RunningService) -> None:
    page.goto(service.link)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Account")).to_be_visible()


def connect(page: Page, url: str, server: Radosgw) -> None:
    page.get_by_role("link", name="Storages").click()
    page.get_by_role("link", name="Connect a storage").click()
    page.get_by_role("link", name=re.compile("^S3")).click()
    page.get_by_label("Name").fill("Facility")
    page.get_by_label("Address").fill(url)
    page.get_by_label("Access key").fill(server.credentials["access_key"])
    page.get_by_label("Secret key").fill(server.credentials["secret_key"])
    page.get_by_role("button", name="Test and connect").click()
    expect(page.get_by_role("heading", name="What it can do")).to_be_visible(timeout=120_000)
    assert server.credentials["secret_key"] not in page.content()


def create(page: Page) -> None:
    page.get_by_role("link", name="New project here").click()
    page.get_by_label("Name").fill("Ribosome")
    page.get_by_label("New folder in here").fill(FOLDER)
    page.get_by_label("Example movies").check()
    page.get_by_role("button", name="Create project").click(no_wait_after=True)
    expect(page.locator(".strip")).to_be_visible(timeout=240_000)


def align(page: Page) -> None:
    page.get_by_role("link", name="Start", exact=True).click()
    page.get_by_label("Voltage").fill("300")
    page.get_by_label("Gain reference", exact=True).select_option(index=1)
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".run-line .badge")).to_have_text("finished", timeout=720_000)
    page.locator(".crumbs a").nth(1).click()
    expect(page.locator(".boxes li.finished")).to_have_count(2)


def boxes(page: Page) -> list[str]:
    return page.locator(".boxes li.finished strong").all_inner_texts()


def save_and_look_at_history(page: Page) -> None:
    page.get_by_role("button", name="Save now").click()
    expect(page.locator(".strip")).to_contain_text(re.compile(r"generation [2-9]"), timeout=240_000)
    page.get_by_role("link", name="History").click()
    expect(page.get_by_role("button", name="Go back").last).to_be_visible(timeout=60_000)
    page.locator(".crumbs a").nth(1).click()


def close(page: Page) -> None:
    page.locator(".strip").get_by_role("button", name="Close").click()
    expect(page.get_by_role("heading", name="This project is closed")).to_be_visible(timeout=240_000)


def delete(page: Page) -> None:
    page.get_by_role("link", name="Settings").click()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete project").click()
    expect(page.get_by_text("has been deleted")).to_be_visible()


def adopt_and_open(page: Page) -> None:
    page.get_by_role("link", name="New project here").click()
    page.get_by_label("Name").fill("Ribosome again")
    page.get_by_role("button", name=FOLDER, exact=True).click()
    expect(page.get_by_text("A Scipion Cloud project lies here")).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Create project").click()
    expect(page.get_by_text("Time until all is here")).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Open project").click()
    expect(page.locator(".strip")).to_be_visible(timeout=240_000)
