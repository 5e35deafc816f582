"""The data page in Chromium: a folder of many files, a lost network, a reload, and what the page says."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from scipion_cloud.testing.browser import chromium
from upload_site import Site

pytestmark = pytest.mark.browser

COUNT = 300


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site.prepare(tmp_path / "home")
    site.start()
    yield site
    site.stop()


@pytest.fixture
def context(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_cookies([{"name": "sessionid", "value": site.sessions["owner"], "url": site.url}])
    yield context
    context.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console complained about: broken scripts and breaches of the content policy."""
    return []


@pytest.fixture
def page(context: BrowserContext, complaints: list[str]) -> Page:
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: "Content Security Policy" in m.text and complaints.append(m.text))
    page.on("dialog", lambda dialog: dialog.accept())
    return page


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dropped") / "grid 1"
    folder.mkdir()
    for i in range(COUNT):
        (folder / f"movie_{i:03}.tif").write_bytes(os.urandom(40_000))
    return folder


def open_page(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/projects/{site.project}/data/")
    page.wait_for_selector("#uploader[data-ready]")


def drop(page: Page, folder: Path) -> None:
    """Choose a folder, as the link in the drop area does."""
    page.locator("input[webkitdirectory]").first.set_input_files(folder)


def arrived(site: Site, folder: Path) -> int:
    return sum(1 for _ in (site.data / folder.name).glob("*.tif"))


def wait_until(true: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.tif")}


def test_a_folder_survives_a_lost_network_and_a_reload(
    site: Site, context: BrowserContext, page: Page, movies: Path, complaints: list[str]
) -> None:
    open_page(page, site)
    expect(page.get_by_text("No files yet")).to_be_visible()
    drop(page, movies)
    wait_until(lambda: arrived(site, movies) >= 30)
    context.set_offline(True)
    page.wait_for_timeout(1500)
    before = arrived(site, movies)
    assert before < COUNT, "the network was cut too late to prove anything"
    page.wait_for_timeout(1000)
    assert arrived(site, movies) == before
    context.set_offline(False)
    wait_until(lambda: arrived(site, movies) >= before + 30)  # by itself

    page.reload()
    page.wait_for_selector("#uploader[data-ready]")
    page.wait_for_timeout(500)
    stopped = arrived(site, movies)
    assert stopped < COUNT, "the reload came too late to prove anything"
    expect(page.get_by_text(f"{stopped} of {COUNT} present")).to_be_visible(timeout=240_000)
    expect(page.get_by_text("Drop the same folder again")).to_be_visible()

    sent: list[str] = []
    page.on("request", lambda r: r.method == "PATCH" and sent.append(r.url))
    drop(page, movies)
    expect(page.get_by_text(f"{COUNT} of {COUNT} present")).to_be_visible(timeout=240_000)
    assert digests(site.data / movies.name) == digests(movies)
    assert len(set(sent)) == COUNT - stopped  # what was here was not sent again
    assert not site.parts()
    expect(page.get_by_text(f"{COUNT} movies")).to_be_visible()
    assert complaints == []


def test_the_page_says_why_a_file_is_not_taken(site: Site, page: Page, tmp_path: Path) -> None:
    (site.data / "set").mkdir(parents=True)
    (site.data / "set" / "taken.tif").write_bytes(b"another one")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "taken.tif").write_bytes(b"mine")
    (folder / "free.tif").write_bytes(b"mine too")
    open_page(page, site)
    drop(page, folder)
    expect(page.locator("#uploader-notice")).to_contain_text("Nothing is overwritten")
    wait_until(lambda: (site.data / "set" / "free.tif").exists())
    assert (site.data / "set" / "taken.tif").read_bytes() == b"another one"
    expect(page.get_by_text("1 of 1 present")).to_be_visible()


def test_missing_files_can_be_forgotten_and_files_deleted(site: Site, page: Page) -> None:
    site.data.mkdir(parents=True, exist_ok=True)
    (site.data / "here.tif").write_bytes(b"abc")
    site.in_django(
        "from scipion_cloud.portal.uploads.plan import announce\n"
        "announce(project, user, [('here.tif', 3), ('gone.tif', 5)])"
    )
    open_page(page, site)
    expect(page.get_by_text("1 of 2 present")).to_be_visible()
    page.get_by_text("1 still missing").click()
    expect(page.get_by_text("gone.tif")).to_be_visible()
    page.wait_for_timeout(5000)  # longer than the list takes to be fetched afresh
    expect(page.get_by_text("gone.tif")).to_be_visible()
    page.get_by_role("button", name="Forget the missing").click()
    expect(page.get_by_text("1 of 1 present")).to_be_visible()
    page.get_by_role("button", name="Delete here.tif").click()
    expect(page.get_by_text("No files yet")).to_be_visible()
    assert not (site.data / "here.tif").exists()
