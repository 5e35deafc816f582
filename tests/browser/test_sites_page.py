"""The operators' pages of the sites in Chromium: live, by keyboard, on a phone, in the dark."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from scipion_cloud.config import Config
from scipion_cloud.jobs import wire
from scipion_cloud.jobs.batch_system import Node
from scipion_cloud.sites import state
from scipion_cloud.testing.browser import chromium, watch
from upload_site import Site

pytestmark = pytest.mark.browser

SITES = """
[hpc]
title = "University cluster"
area = "/area"
batch = "slurm"
software = ["relion"]
[[hpc.flavours]]
name = "cpu"
cpus = 64
memory_gb = 256
price_per_hour = 1.2
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="sct-sites-"))
    site = Site.prepare(folder)
    site.in_django("user.is_staff = True; user.save()")
    (site.home / "sites.toml").write_text(SITES)
    site.start()
    yield site
    site.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def config(site: Site) -> Config:
    return Config(home=site.home)


def seen(config: Config, *states: str) -> None:
    """As the controller writes it after a look."""
    nodes = [Node(f"n{i}", s, 64, {"full": 64, "busy": 16}.get(s, 0), 256.0) for i, s in enumerate(states)]
    now = datetime.now(UTC).isoformat()
    state.change(config, "hpc", seen={"when": now, "nodes": wire.encode(nodes)}, unreachable=None)


def open_page(browser: Browser, site: Site, path: str, **options: object) -> Page:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
    context.add_cookies([{"name": "sessionid", "value": site.sessions["owner"], "url": site.url}])
    page = context.new_page()
    page.goto(site.url + path)
    return page


def test_nodes_are_shown_as_they_come_and_go(browser: Browser, site: Site, config: Config) -> None:
    seen(config, "idle", "off")
    page = open_page(browser, site, "/sites/")
    troubles = watch(page)
    squares = page.locator("#site-hpc .squares li")
    expect(squares).to_have_count(2)
    link = page.get_by_role("link", name="University cluster")
    link.focus()
    seen(config, "full", "busy", "starting")
    expect(squares).to_have_count(3)
    expect(page.get_by_role("img", name="n1: busy, 16 of 64 CPUs")).to_be_visible()
    expect(link).to_be_focused()  # also when what is around it has been replaced
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("University cluster")
    page.get_by_role("link", name="list them").click()
    expect(page.get_by_role("row", name="n2 starting")).to_be_visible()
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    state.change(config, "hpc", unreachable={"why": "Connection timed out", "since": since})
    expect(page.get_by_text("Not reached since")).to_be_visible()
    expect(page.get_by_role("row", name="n2 starting")).to_be_visible()
    assert not troubles
    page.context.close()


def test_draining_from_the_page(browser: Browser, site: Site, config: Config) -> None:
    seen(config, "idle")
    page = open_page(browser, site, "/sites/hpc/")
    page.get_by_label("Why").fill("new disks")
    page.keyboard.press("Enter")
    expect(page.locator("#live .notice")).to_contain_text("new disks")
    expect(page.locator("#live .badge").first).to_have_text("drained")
    page.get_by_role("button", name="Take jobs again").click()
    expect(page.locator("#live .badge").first).to_have_text("ready")
    assert "drained" not in json.loads((config.home / "sites" / "hpc.json").read_text())
    page.context.close()


@pytest.mark.parametrize("path", ["/sites/", "/sites/hpc/?nodes=all"])
def test_a_phone_in_the_dark(browser: Browser, site: Site, config: Config, path: str) -> None:
    seen(config, *["busy"] * 80)
    page = open_page(
        browser, site, path, viewport={"width": 390, "height": 844}, color_scheme="dark", is_mobile=True
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".squares.many li").count() == 80
    background = page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
    assert max(int(part) for part in background.removeprefix("rgb(").rstrip(")").split(",")) < 80
    page.context.close()
