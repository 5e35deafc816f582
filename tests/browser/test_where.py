"""The choice of a site on a tool's form, as a person meets it."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from scipion_cloud.testing.browser import chromium, watch

sys.path.append(str(Path(__file__).parents[1]))
from desktop_site import Site

SITES = """
[here]
kind = "home"
title = "This machine"

[institute]
title = "Institute cluster"
area = "AREA"
software = ["relion"]
flavours = [{ name = "thin", cpus = 32, memory_gb = 128, price_per_hour = 0.64 }]

[national]
title = "National supercomputer"
area = "/scratch/scipion-cloud"
software = ["relion"]
flavours = [{ name = "fat", cpus = 128, memory_gb = 512, price_per_hour = 5.12 }]

[teaching]
title = "Teaching room"
area = "/scratch/scipion-cloud"
"""
PREPARE = """
from datetime import UTC, datetime
from scipion_cloud.examples import MovieSpec, write_movies
from scipion_cloud.jobs import wire
from scipion_cloud.jobs.batch_system import Node
from scipion_cloud.sites import state
write_movies(project.data, 2, MovieSpec(size=256, frames=4), seed=3)
def seen(name, cpus, used, **more):
    nodes = wire.encode([Node(name + "1", "busy" if used else "idle", cpus, used, 500.0)])
    when = datetime.now(UTC).isoformat()
    state.change(config, name, seen={"when": when, "nodes": nodes, **more})
seen("here", 2, 2, running=1, queued=2, typical=900.0)
seen("institute", 32, 0)
seen("national", 128, 128, running=4, queued=9, typical=7200.0)
seen("teaching", 8, 0)
"""
SEND = """
import time
from scipion_cloud.broker.broker import Broker
from scipion_cloud.jobs import JobSpec, backend_for
parcel = {"root": str(project.path), "run": "out", "needs": ["data"], "protocol": None}
spec = JobSpec(("mkdir", "out/done"), project.path, memory_gb=0.1, site="institute", parcel=parcel)
jobs, broker = backend_for(config), Broker(config)
job = jobs.submit(spec, "first")
while not (status := jobs.status([job])[job]).state.is_final:
    broker.tick()
    time.sleep(0.1)
broker.close()
print(status.state)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, software: Path) -> Iterator[Site]:
    """A portal with four sites, one of them without RELION; one is a folder of this machine."""
    site = Site(tmp_path_factory.mktemp("where"), software)
    (site.home / "sites.toml").write_text(SITES.replace("AREA", str(tmp_path_factory.mktemp("institute"))))
    site.prepare(scipion=False)
    site.run(PREPARE)
    site.start("portal")
    yield site
    site.end()


@pytest.fixture(scope="module")
def page(site: Site) -> Iterator[Page]:
    with chromium() as browser:
        context = browser.new_context(base_url=site.url, viewport={"width": 1280, "height": 1000})
        context.add_cookies([{"name": "sessionid", "value": site.sessions["owner"], "url": site.url}])
        page = context.new_page()
        page.troubles = watch(page)
        yield page


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_a_person_sends_a_run_away(site: Site, page: Page) -> None:
    page.goto(f"/projects/{site.project}/tools/movie-alignment/")
    where = page.locator("#where")
    expect(page.locator("#where-automatic")).to_be_checked()
    expect(where).to_contain_text("Institute cluster, where the results are back first")
    expect(page.locator("#where-teaching")).to_be_disabled()
    expect(where.get_by_text("has no RELION")).to_be_visible()

    page.locator("#where-institute").check()
    page.get_by_text("Advanced").click()
    page.get_by_label("Threads").fill("64")
    page.get_by_label("Threads").press("Tab")
    expect(where.get_by_text("has nodes of 32 CPUs; this needs 64")).to_be_visible()
    expect(page.locator("#where-institute")).to_be_disabled()

    page.get_by_label("Threads").fill("16")
    page.get_by_label("Threads").press("Tab")
    expect(page.locator("#where-institute")).to_be_enabled()
    page.locator("#where-institute").check()
    page.get_by_label("Which movies").fill("*")
    page.get_by_label("Which movies").press("Tab")
    expect(page.locator("#where-institute")).to_be_checked()
    page.get_by_label("Voltage").fill("300")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".run-place")).to_contain_text("Institute cluster")
    assert page.troubles == []


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_a_person_sees_where_the_files_are_already(site: Site, page: Page) -> None:
    form, where = f"/projects/{site.project}/tools/movie-alignment/", page.locator("#where")
    page.goto(form)
    expect(where).to_contain_text("Institute cluster")
    expect(where).not_to_contain_text("there already")
    assert site.run(SEND) == "DONE"
    page.goto(form)
    institute = where.locator("label", has=page.locator("#where-institute"))
    expect(institute).to_contain_text("the files are there already")
    expect(where.get_by_text("there already")).to_have_count(1)
    site.run("next(project.data.glob('*.tif*')).touch()")
    page.goto(form)
    expect(institute).to_contain_text(re.compile(r"[1-9]\d% of the files are there already"))
    assert page.troubles == []
