"""The agent's page in a browser: what people see while a project is fetched, worked on, saved and closed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_site import Site, works
from playwright.sync_api import Browser, Page, expect

from scipion_cloud.deployments.states import Phase
from scipion_cloud.deployments.window import window
from scipion_cloud.testing.browser import chromium, watch

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    troubles = watch(page)
    yield page
    page.close()
    assert troubles == []


def test_the_page_from_the_first_file_to_the_end(project: Site, page: Page, tmp_path: Path) -> None:
    project.steer("hold-large")
    agent = project.open(every=600)
    agent.wait_phase(Phase.READY)
    with window(agent.state) as url:
        page.goto(url)
        expect(page.get_by_role("heading", level=1)).to_have_text("Ready")
        expect(page.get_by_text("Still arriving")).to_be_visible()
        expect(page.get_by_role("progressbar")).to_have_count(1)
        shots(page, tmp_path, "arriving")
        project.steer()
        expect(page.get_by_text("Still arriving")).to_have_count(0)
        works(agent, project)
        page.get_by_role("button", name="Save now").click()
        expect(page.get_by_role("status")).to_have_text("Saved as generation 2.")
        expect(page.locator("dd").first).to_have_text("2")
        page.get_by_role("button", name="Save now").click()
        expect(page.get_by_role("status")).to_have_text("Nothing had changed.")
        shots(page, tmp_path, "ready")
        (project.folder / "work" / "new.txt").write_text("more")
        project.steer("full")
        agent.stop()
        expect(page.get_by_role("heading", level=1)).to_have_text("The last save does not succeed")
        expect(page.get_by_role("heading", name="What went wrong")).to_be_visible()
        shots(page, tmp_path, "failing")
        project.steer()
        assert agent.end() == 0
        expect(page.get_by_role("heading", level=1)).to_have_text("Closed")  # its last word


def test_the_page_asks_and_takes_an_answer(project: Site, page: Page, tmp_path: Path) -> None:
    agent = project.open()
    work = works(agent, project)
    for path in (work / "data/movie.mrc", work / "Runs/000002_Import/log", work / "project.sqlite"):
        path.unlink()
    agent.client.save()
    with window(agent.state) as url:
        page.goto(url)
        expect(page.get_by_role("heading", name="Is this right?")).to_be_visible()
        shots(page, tmp_path, "question")
        page.get_by_role("button", name="Save it like this, once").click()
        expect(page.get_by_role("heading", name="Is this right?")).to_be_hidden()
    agent.wait_for(lambda s: s.generation == 2)
    assert set(project.shown()) == {"result.star"}


def shots(page: Page, folder: Path, name: str) -> None:
    """Both looks, to be looked at; nothing may stick out of a phone's screen either."""
    for look in ("light", "dark"):
        page.emulate_media(color_scheme=look)
        page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
    before = page.viewport_size
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    if before:
        page.set_viewport_size(before)
