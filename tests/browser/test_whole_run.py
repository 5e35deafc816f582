"""The main job as a person does it: sign in, create, upload, align, look, open the desktop. All is real."""

import json
import re
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import starfile
from playwright.sync_api import Page, expect

from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.testing.browser import GREEN_BOXES, chromium, watch
from scipion_cloud.testing.service import RunningService, running_service

COUNT = 4


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> RunningService:
    with running_service(tmp_path_factory.mktemp("whole") / "home of tests") as service:
        yield service


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("movies") / "Grid 1"
    write_movies(folder, COUNT, MovieSpec(size=768, frames=12), seed=7)
    return folder


@pytest.fixture(scope="module")
def page(service: RunningService) -> Page:
    with chromium() as browser:
        context = browser.new_context(base_url=service.url, viewport={"width": 1280, "height": 860})
        page = context.new_page()
        page.troubles = watch(page)
        yield page


@pytest.mark.browser
@pytest.mark.scipion
@pytest.mark.desktop
@pytest.mark.timeout(1500)
def test_from_sign_in_to_desktop(service: RunningService, page: Page, movies: Path, tmp_path: Path) -> None:
    sign_in(page, service)
    create_project(page, "Ribosomes 'quoted' & <b>bold</b>")
    upload(page, movies)
    start_alignment(page)
    watch_movies_arrive(page)
    check_against_truth(page, movies, tmp_path)
    desktop_shows_green_boxes(page)
    what_is_launched_there_appears_on_the_page(page)
    # but for the form that was refused on purpose
    assert [trouble for trouble in page.troubles if "422" not in trouble] == []


def sign_in(page: Page, service: RunningService) -> None:
    page.goto(service.link)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Account")).to_be_visible()
    # the link is used up, for anybody
    second = page.request.post(service.link, fail_on_status_code=False)
    assert second.status in (403, 410)
    page.goto(service.url)
    expect(page.get_by_text("Start with a project")).to_be_visible()


def create_project(page: Page, name: str) -> None:
    page.get_by_role("link", name="Create your first project").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Description").fill("Whole run")
    page.get_by_role("button", name="Create project").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible(timeout=120_000)


def upload(page: Page, movies: Path) -> None:
    page.get_by_role("link", name="Data", exact=True).click()
    files = sorted(f for f in movies.iterdir() if f.suffix != ".json")
    page.locator("input[type=file]").first.set_input_files(files)
    start = page.get_by_role("button", name=re.compile("^Upload"))
    if start.is_visible():
        start.click()
    expect(page.get_by_text(f"{len(files)} of {len(files)} present")).to_be_visible(timeout=240_000)
    page.locator(".crumbs a").nth(1).click()


def start_alignment(page: Page) -> None:
    page.get_by_role("link", name="Start", exact=True).click()
    expect(page.get_by_label("Pixel size")).to_have_value(re.compile(r"^[\d.]+$"))  # read from the files
    page.get_by_label("Voltage").fill("3")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".field.wrong .error")).to_be_visible()  # 3 kV: no such microscope
    page.get_by_label("Voltage").fill("300")
    page.get_by_label("Gain reference", exact=True).select_option(index=1)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text(re.compile(rf"of {COUNT} movies"))).to_be_visible()


def watch_movies_arrive(page: Page) -> None:
    first = page.locator(".badge.done").first
    expect(first).to_be_visible(timeout=480_000)
    expect(page.locator(".run-line .badge")).to_have_text("finished", timeout=720_000)
    expect(page.locator("td.thumb img")).to_have_count(COUNT, timeout=240_000)
    page.locator("td.name a").first.click()
    # made by a process of the lowest priority
    expect(page.locator(".compare img").first).to_be_visible(timeout=240_000)
    expect(page.locator("svg .start").first).to_be_visible()
    page.get_by_role("button", name="Power spectrum").click()
    expect(page.get_by_alt_text("Power spectrum of the aligned micrograph")).to_be_visible()
    page.locator(".crumbs a").last.click()


def check_against_truth(page: Page, movies: Path, tmp_path: Path) -> None:
    """The drift that the pages show was simulated, and the STAR file holds the same motions."""
    truth = json.loads(next(movies.glob("*.json")).read_text())
    project, run = re.search(r"projects/([\w-]+)/runs/([\w-]+)", page.url).groups()
    answer = page.request.get(f"/api/v1/projects/{project}/runs/{run}/movies")
    by_name = {Path(m["name"]).name: m for m in answer.json()}
    assert len(by_name) == COUNT
    for movie in truth["movies"]:
        found = np.array(by_name[movie["file"]]["drift"])
        true = np.transpose([movie["drift_A"]["x"], movie["drift_A"]["y"]])
        residual = (found - found.mean(0)) - (true - true.mean(0))
        assert np.sqrt((residual**2).sum(1).mean()) < 1.0  # A; a pixel is larger
    with page.expect_download() as download:
        page.get_by_role("link", name="STAR file").click()
    star = tmp_path / "corrected.star"
    download.value.save_as(star)
    table = starfile.read(star)["micrographs"]
    assert len(table) == COUNT
    assert sorted(table["rlnAccumMotionTotal"]) == pytest.approx(
        sorted(m["total"] for m in by_name.values()), abs=0.01
    )


def desktop_shows_green_boxes(page: Page) -> None:
    page.locator(".crumbs a").nth(1).click()
    expect(page.locator(".boxes li.finished")).to_have_count(2)
    page.get_by_role("button", name="Open desktop").click()
    canvas = page.locator("canvas").first
    expect(canvas).to_be_visible(timeout=120_000)
    page.wait_for_function(GREEN_BOXES, timeout=240_000)


def what_is_launched_there_appears_on_the_page(page: Page) -> None:
    """Duplicate the import box and execute it as a person would, with mouse and keyboard."""
    project = re.search(r"projects/([\w-]+)", page.url)[1]
    page.mouse.click(295, 290)  # the first box below the root
    page.wait_for_timeout(1000)
    page.keyboard.press("Control+d")
    page.wait_for_function(RED_BUTTON, timeout=120_000)
    page.mouse.click(1200, 807)  # Execute

    def copy() -> dict:
        answer = page.request.get(f"/api/v1/projects/{project}/protocols").json()
        return next((p for p in answer["protocols"] if "copy" in p["label"]), {"status": "saved"})

    deadline = time.monotonic() + 240
    while (found := copy())["status"] != "finished" and time.monotonic() < deadline:
        page.wait_for_timeout(3000)
        if found["status"] == "saved":
            page.keyboard.press("Enter")  # the dialog for memory and time limit of the queue
    assert found["status"] == "finished"
    assert int(found["job_id"]) > 0  # it went through the batch system
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Stop the desktop").click()
    expect(page.locator("canvas")).to_be_hidden(timeout=120_000)


# the Execute button of a maximised form
RED_BUTTON = """() => {
  const canvas = document.querySelector("canvas");
  const [red, green, blue] = canvas.getContext("2d").getImageData(1160, 760, 1, 1).data;
  return red > 150 && green < 60 && blue < 60;
}"""


@pytest.mark.browser
def test_a_stranger_sees_nothing(service: RunningService) -> None:
    for path in ("/", "/new/", "/people/", "/account/"):
        answer = httpx.get(service.url + path)
        assert answer.status_code == 302
        assert answer.headers["location"].startswith("/accounts/login/")
