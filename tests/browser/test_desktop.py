"""The desktop in a real browser: Scipion's pixels, clipboard both ways, coming back, extending, stopping."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from desktop_site import Site
from scipion_cloud.desktops.settings import SessionState
from scipion_cloud.testing.browser import chromium, watch

pytestmark = [pytest.mark.browser, pytest.mark.desktop, pytest.mark.scipion]

# Scipion's window is mostly white, the empty screen is dark
SCIPION_PIXELS = """() => {
  const canvas = document.querySelector("[data-screen] canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let white = 0;
  for (let i = 0; i < data.length; i += 4) white += data[i] > 250 && data[i + 1] > 250 && data[i + 2] > 250;
  return white > data.length / 4 / 3;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, software: Path) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("desktop") / "home", software)
    site.home.mkdir()
    try:
        site.prepare(scipion=True)
        site.start("portal")
        site.start("controller")
        yield site
    finally:
        site.end()


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[BrowserContext]:
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.url)
        context.add_cookies([{"name": "sessionid", "value": site.sessions["owner"], "url": site.url}])
        yield context


@pytest.fixture
def page(browser: BrowserContext) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()


def test_a_desktop_from_open_to_stop(site: Site, page: Page) -> None:
    troubles = watch(page)
    page.goto(site.page)
    page.get_by_role("button", name="Open desktop").click()
    page.locator("#desktop[data-connected]").wait_for(timeout=120_000)
    page.wait_for_function(SCIPION_PIXELS, timeout=120_000)
    expect(page.locator("[data-overlay]")).to_have_class("overlay gone")
    expect(page.locator("[data-hint]")).to_be_hidden()
    _size_follows_the_window(page)
    _clipboard_goes_both_ways(site, page)
    assert troubles == []

    _comes_back_after_the_portal_was_killed(site, page)
    _little_time_left_offers_more(site, page)
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Stop the desktop").click()
    expect(page.get_by_role("heading", name="The desktop is closed")).to_be_visible(timeout=120_000)
    expect(page.get_by_role("button", name="Open desktop")).to_be_visible()


def _size_follows_the_window(page: Page) -> None:
    page.set_viewport_size({"width": 1100, "height": 742})
    page.wait_for_function("() => document.querySelector('[data-screen] canvas').width === 1100")
    assert page.evaluate("document.querySelector('[data-screen] canvas').height") == 700


def _clipboard_goes_both_ways(site: Site, page: Page) -> None:
    folder = Path(site.run("print(desktop.path)"))
    on_screen = os.environ | {
        "DISPLAY": SessionState.read(folder).display,
        "XAUTHORITY": str(folder / "xauthority"),
    }
    xclip = ["xclip", "-selection", "clipboard"]
    text = "from the browser: 4.2 Å, naïve"
    page.evaluate("text => navigator.clipboard.writeText(text)", text)
    page.locator("[data-screen] canvas").click(position={"x": 600, "y": 500})
    page.keyboard.press("Control+v")
    page.wait_for_timeout(200)
    # beside Playwright's loop: the browser is asked for the text only now
    pasted = subprocess.Popen([*xclip, "-o"], env=on_screen, stdout=subprocess.PIPE)
    page.wait_for_timeout(500)
    assert pasted.communicate(timeout=60)[0].decode() == text
    subprocess.run(
        xclip, env=on_screen, input="from Scipion ✓".encode(), stdout=subprocess.DEVNULL, check=True
    )
    page.wait_for_function(
        "async () => await navigator.clipboard.readText() === 'from Scipion ✓'", timeout=60_000
    )
    page.get_by_role("button", name="Clipboard").click()
    expect(page.get_by_label("Clipboard of the desktop")).to_have_value("from Scipion ✓")
    page.get_by_role("button", name="Clipboard").click()


def _comes_back_after_the_portal_was_killed(site: Site, page: Page) -> None:
    site.stop("portal")
    expect(page.get_by_role("heading", name="Connection lost")).to_be_visible()
    site.start("portal")
    page.locator("#desktop[data-connected]").wait_for(timeout=120_000)
    page.wait_for_function(SCIPION_PIXELS, timeout=120_000)


def _little_time_left_offers_more(site: Site, page: Page) -> None:
    expect(page.locator("[data-time]")).to_contain_text("7 h 5")
    extend = page.get_by_role("button", name="Extend")
    expect(extend).to_be_hidden()
    site.run(
        "from datetime import timedelta as d; from django.utils import timezone;"
        "desktop.deadline = timezone.now() + d(minutes=10); desktop.save()"
    )
    expect(extend).to_be_visible(timeout=120_000)
    extend.click()
    expect(page.locator("[data-time]")).to_contain_text("7 h 59")
    expect(extend).to_be_hidden()
