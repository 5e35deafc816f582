"""`rank` on any sites and any jobs."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scipion_cloud.broker.rank import Needs, Offer, rank
from scipion_cloud.jobs.batch_system import Node
from scipion_cloud.sites.model import Batch, Flavour, Site, SiteKind, software_label
from scipion_cloud.sites.now import SiteNow

PACKAGES = ("relion", "xmipp3", "cryosparc")
STATES = ("idle", "busy", "full", "down", "drained", "off", "starting")
WHEN = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
few = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # each draws sites
names = st.sampled_from([f"site-{letter}" for letter in "abcdef"])
maybe_few = st.none() | st.integers(1, 40)


FLAVOURS = [
    (),
    (Flavour(name="small", cpus=2, memory_gb=1, price_per_hour=0.1),),
    (
        Flavour(name="cpu", cpus=16, memory_gb=4, price_per_hour=1),
        Flavour(name="memory", cpus=4, memory_gb=64, price_per_hour=2),
    ),
    (
        Flavour(name="gpu", cpus=8, memory_gb=64, gpus=2, price_per_hour=7.5),
        Flavour(name="free", cpus=64, memory_gb=8),
    ),
]


@st.composite
def site(draw: st.DrawFn, name: str, *, home: bool) -> Site:
    far: dict[str, Any] = {} if home else {"area": Path("/area")}
    return Site(
        name=name,
        kind=SiteKind.HOME if home else SiteKind.COMPUTE,
        batch=draw(st.sampled_from([Batch.LOCAL, Batch.SLURM])),
        software=draw(st.sets(st.sampled_from(PACKAGES)).map(lambda found: tuple(sorted(found)))),
        flavours=draw(st.sampled_from(FLAVOURS)),
        max_cpus=draw(maybe_few),
        max_hours=draw(maybe_few),
        max_jobs=draw(maybe_few),
        max_gb=draw(maybe_few),
        **far,
    )


@st.composite
def node(draw: st.DrawFn) -> Node:
    cpus = draw(st.integers(1, 64))
    return Node(
        name=draw(names),
        state=draw(st.sampled_from(STATES)),
        cpus=cpus,
        cpus_used=draw(st.integers(0, cpus)),
        memory_gb=draw(st.sampled_from([1.0, 4.0, 64.0])),
        gpus=draw(st.integers(0, 2)),
    )


@st.composite
def sites(draw: st.DrawFn) -> list[SiteNow]:
    found = []
    for index, name in enumerate(draw(st.lists(names, max_size=3, unique=True))):
        away = draw(st.sampled_from(["", "no route"]))
        seen = SiteNow(
            site=draw(site(name, home=index == 0)),
            seen=draw(st.sampled_from([None, WHEN, WHEN])),
            drained=draw(st.sampled_from(["", "", "new disks"])),
            unreachable=away,
            unreachable_since=WHEN if away else None,
            nodes=tuple(draw(st.lists(node(), max_size=2))),
            queued=draw(st.integers(0, 3)),
            running=draw(st.integers(0, 3)),
            typical=draw(st.sampled_from([1.0, 600.0])),
            used_gb=draw(st.none() | st.integers(0, 50)),
            free_gb=draw(st.none() | st.integers(0, 50)),
            bytes_per_second=draw(st.none() | st.sampled_from([1e6, 1e8])),
        )
        found.append(seen)
    return found


needs = st.builds(
    Needs,
    packages=st.sets(st.sampled_from([*PACKAGES, "pwem"])).map(tuple),
    cpus=st.integers(0, 32),
    tasks=st.integers(1, 8),
    gpus=st.integers(0, 2),
    memory_gb=st.sampled_from([0.5, 4.0, 100.0]),
    hours=st.none() | st.sampled_from([0.5, 12.0, 100.0]),
    expected=st.none() | st.sampled_from([10.0, 3600.0]),
    bytes_in=st.integers(0, 60 * 10**9),
    bytes_out=st.integers(0, 10**9),
    there=st.dictionaries(names, st.integers(0, 60 * 10**9), max_size=3),
    guessed=st.booleans(),
    budget=st.none() | st.sampled_from([0.0, 5.0]),
)


@few
@given(sites(), needs, st.randoms())
def test_the_order_of_the_sites_does_not_matter(all_sites: list[SiteNow], job: Needs, random: Any) -> None:
    shuffled = list(all_sites)
    random.shuffle(shuffled)
    assert rank(shuffled, job) == rank(all_sites, job) == rank(all_sites, job)


@few
@given(sites(), needs)
def test_what_is_possible_comes_first_and_ends_first(all_sites: list[SiteNow], job: Needs) -> None:
    offers = rank(all_sites, job)
    assert sorted(offer.site for offer in offers) == sorted(now.name for now in all_sites)
    possible = [offer for offer in offers if offer.possible]
    assert offers[: len(possible)] == possible
    ends = [offer.end // 60 for offer in possible]
    assert ends == sorted(ends)
    for one, other in pairwise(possible):
        if one.end // 60 == other.end // 60:
            assert one.cost_per_hour <= other.cost_per_hour


def refusals(now: SiteNow, job: Needs) -> list[str]:
    """What must be said against a site, told in the plainest way."""
    here, cpus, found = now.site, max(1, job.cpus), []
    found += [
        f"has no {software_label(p)}"
        for p in job.packages
        if p != "pwem" and p not in here.software and not here.is_home
    ]
    found += ["takes no new jobs"] if now.drained else []
    found += ["cannot be reached"] if now.unreachable else []
    found += ["ends jobs after"] if here.max_hours and job.hours and job.hours > here.max_hours else []
    found += ["gives one job"] if here.max_cpus and cpus * job.tasks > here.max_cpus else []
    found += ["takes no more than"] if here.max_jobs and now.queued + now.running >= here.max_jobs else []
    if now.flavours:
        found += ["has no GPU"] if job.gpus and not any(f.gpus for f in now.flavours) else []
        found += ["GiB; this needs"] if all(f.memory_gb < job.memory_gb for f in now.flavours) else []
        found += ["; this needs"] if all(f.cpus < cpus for f in now.flavours) else []
    if not here.is_home:
        more = (max(0, job.bytes_in - job.there.get(now.name, 0)) + job.bytes_out) / 1e9 * (not job.guessed)
        found += ["lets us keep"] if here.max_gb and (now.used_gb or 0) + more > here.max_gb else []
        found += ["left on its disk"] if now.free_gb is not None and more > now.free_gb else []
        found += ["has not been reached yet"] if now.seen is None and not now.unreachable else []
    return found


@few
@given(sites(), needs)
def test_a_refused_site_says_every_reason_and_is_never_offered(all_sites: list[SiteNow], job: Needs) -> None:
    by_name = {now.name: now for now in all_sites}
    for offer in rank(all_sites, job):
        assert offer.reasons
        expected = refusals(by_name[offer.site], job)
        told = "; ".join(offer.reasons)
        assert not (expected and offer.possible)
        for text in expected:
            assert text in told
        if offer.possible and by_name[offer.site].flavours:
            (flavour, *_) = [f for f in by_name[offer.site].flavours if f.name == offer.flavour]
            assert flavour.memory_gb >= job.memory_gb
            assert flavour.cpus >= job.cpus
            assert flavour.gpus >= job.gpus


def place(offers: list[Offer], name: str) -> int:
    return [offer.site for offer in offers].index(name)


@few
@given(sites().filter(bool), needs, st.integers(1, 60 * 10**9), st.data())
def test_more_data_there_never_ranks_worse(
    all_sites: list[SiteNow], job: Needs, more: int, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([now.name for now in all_sites]))
    richer = replace(job, there={**job.there, name: job.there.get(name, 0) + more})
    before, after = rank(all_sites, job), rank(all_sites, richer)
    assert place(after, name) <= place(before, name)
    assert after[place(after, name)].transfer <= before[place(before, name)].transfer


@few
@given(sites().filter(bool), needs)
def test_a_site_more_changes_nobody_elses_offer(all_sites: list[SiteNow], job: Needs) -> None:
    added = all_sites[-1].name
    without = rank(all_sites[:-1], job)
    assert [offer for offer in rank(all_sites, job) if offer.site != added] == without
