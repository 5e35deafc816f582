"""Takes the pictures in the docs from the real thing: `python docs/screenshots.py [FOLDER]`.

Starts a service with the demo project on a temporary home, waits for the run, and walks through the pages; a
second project is kept in a storage and saved a few times.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from scipion_cloud.testing.browser import chromium
from scipion_cloud.testing.service import RunningService, running_service

LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "device_scale_factor": 2},
}


def main() -> None:
    """Take all pictures."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "screenshots")
    target.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        running_service(Path(home) / "home", "--demo") as service,
        chromium() as browser,
    ):
        state = sign_in(browser, service)
        kept = keep_a_project(browser, service, state, Path(home) / "facility")
        for look, options in LOOKS.items():
            context = browser.new_context(storage_state=state, base_url=service.url, **options)
            page = context.new_page()
            tour(page, target, look)
            storage_tour(page, target, look, kept)
            context.close()


def sign_in(browser: Browser, service: RunningService) -> dict:
    """Use the one sign-in link and keep the session for all looks."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(service.link)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Account")).to_be_visible()
    state = context.storage_state()
    context.close()
    return state


def keep_a_project(browser: Browser, service: RunningService, state: dict, folder: Path) -> str:
    """The path of the page of a new project in a storage, open and saved a few times."""
    folder.mkdir()
    context = browser.new_context(storage_state=state, base_url=service.url)
    page = context.new_page()
    page.goto("/storages/new/posix/")
    page.get_by_label("Name").fill("Facility")
    page.get_by_label("Address").fill(folder.as_uri())
    page.get_by_role("button", name="Test and connect").click()
    page.get_by_role("link", name="New project here").click()
    page.get_by_label("Name").fill("Ribosome")
    page.get_by_label("New folder in here").fill("grid 1")
    page.get_by_role("button", name="Create project").click()
    page.locator(".strip").wait_for(timeout=300_000)
    project = page.url
    (working,) = service.home.glob("projects/ribosome*")
    for number in range(1, 4):
        (working / "data").mkdir(exist_ok=True)
        (working / "data" / f"notes {number}.txt").write_text("Grid 1, square 4.\n" * number * 400)
        page.goto(project)
        page.get_by_role("button", name="Save now").click()
        expect(page.locator(".strip")).to_contain_text(f"generation {number + 1}", timeout=120_000)
    context.close()
    return project.removeprefix(service.url)


def storage_tour(page: Page, target: Path, look: str, project: str) -> None:
    """The storages, an open project and its history."""

    def shot(name: str, path: str) -> None:
        page.goto(path)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=target / f"{name}-{look}.png")

    shot("storages", "/storages/")
    shot("open", project)
    shot("history", f"{project}history/")


def tour(page: Page, target: Path, look: str) -> None:
    """Every page in one look."""

    def shot(name: str, full: bool = True) -> None:
        page.wait_for_load_state("networkidle")
        page.screenshot(path=target / f"{name}-{look}.png", full_page=full)

    page.goto("/")
    shot("projects")
    page.goto("/new/")
    shot("new")
    page.goto("/account/")
    shot("account")
    page.goto("/people/")
    shot("people")
    page.goto("/sites/")
    shot("sites")
    page.goto("/")
    page.locator("a.card", has_text="Demo").click()
    project = page.url
    page.goto(project + "data/")
    shot("data")
    page.goto(project + "tools/movie-alignment/")
    shot("form")
    page.goto(project)
    page.locator("#project-status td.name a").first.click()
    expect(page.locator(".run-line .badge")).to_have_text("finished", timeout=600_000)
    expect(page.locator("td.thumb img")).to_have_count(6, timeout=300_000)
    run = page.url
    shot("run")
    page.locator("td.name a").first.click()
    page.locator(".compare img").first.wait_for(timeout=120_000)
    shot("movie")
    page.goto(run + "log/")
    shot("log")
    page.goto(project)
    shot("project")
    page.get_by_role("button", name="Open desktop").click()
    page.locator("canvas").first.wait_for(timeout=120_000)
    page.wait_for_timeout(12_000)  # Scipion draws its window
    page.screenshot(path=target / f"desktop-{look}.png")


if __name__ == "__main__":
    main()
