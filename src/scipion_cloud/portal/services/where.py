"""Where a run can compute: what each site offers for it, and what becomes of a wish."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from scipion_cloud.broker.choosing import choose
from scipion_cloud.broker.known import files_of, there
from scipion_cloud.broker.rank import Needs, Offer, rank
from scipion_cloud.config import get_config
from scipion_cloud.errors import ConfigError, InvalidInput, NotFound
from scipion_cloud.model import AUTOMATIC, HERE
from scipion_cloud.portal.services.choosing import movie_names
from scipion_cloud.portal.uploads.files import list_data
from scipion_cloud.records.models import Project
from scipion_cloud.sites.model import Site
from scipion_cloud.sites.reading import read_sites
from scipion_cloud.sites.state import seen_sites
from scipion_cloud.tools.form import Field, Value
from scipion_cloud.tools.movies import cost
from scipion_cloud.tools.movies.info import read_info
from scipion_cloud.tools.tool import Tool

log = logging.getLogger(__name__)

_CENT = 0.01


@dataclass(frozen=True)
class SiteOffer:
    """A site for a run: what it offers, or why it cannot be chosen."""

    site: Site
    offer: Offer
    size: int  # bytes that go there and come back; none at home
    currency: str

    @property
    def name(self) -> str:
        """What is sent as `where`."""
        return HERE if self.site.is_home else self.site.name

    @property
    def price(self) -> str:
        """What the run costs, in words."""
        if not self.offer.cost:
            return "free"
        return (
            f"{self.offer.cost:.2f} {self.currency}"
            if self.offer.cost >= _CENT
            else f"< 0.01 {self.currency}"
        )


def has_choice() -> bool:
    """Whether there is any site but the home; none as long as `sites.toml` is wrong."""
    try:
        return bool(read_sites(get_config()).away)
    except ConfigError as e:
        log.error("%s", e)  # the operators' pages tell it, too
        return False


def site_label(name: str) -> str:
    """What people call a site, also one that is not configured any more."""
    try:
        return read_sites(get_config())[name].label
    except (NotFound, ConfigError):
        return name


def choice(project: Project, tool: Tool, values: Mapping[str, object], movies: str = "") -> list[SiteOffer]:
    """What each site offers for a run as it is being asked for; nothing if there is no choice.

    `values` may be half typed: what cannot be read counts as its default. Raises InvalidInput for movies that
    are not there or cannot be read.
    """
    if not has_choice():
        return []
    return offers(needs_of(project, tool, values, movie_names(project, movies)))


def needs_of(project: Project, tool: Tool, values: Mapping[str, object], movies: list[str]) -> Needs:
    """What a run on these movies of the project's data takes. Raises InvalidInput if they cannot be read."""
    typed = {field.name: _read(field, values.get(field.name)) for field in tool.fields}
    threads = max(1, int(typed.get("threads") or 1))
    first = read_info(project.data / movies[0], project.data)
    micrographs = cost.bytes_out(
        first, len(movies), float(typed.get("binning") or 1), both=bool(typed.get("save_unweighted"))
    )
    config, present = get_config(), {file.path for file in list_data(project)}
    read = dict.fromkeys([*movies, str(typed.get("gain") or "")])
    folder = project.data.relative_to(project.path)
    contents = files_of(config, project.path, [f"{folder}/{path}" for path in read if path in present])
    return Needs(
        packages=tool.packages,
        cpus=threads,
        memory_gb=cost.memory_gb(first),
        expected=cost.seconds(first, len(movies), threads),
        bytes_in=contents.size,
        bytes_out=micrographs,
        there=there(config, contents),
    )


def _read(field: Field, value: object) -> Value:
    try:
        return field.read(value) if value is not None else field.default
    except InvalidInput:
        return field.default


def offers(needs: Needs) -> list[SiteOffer]:
    """What each site offers, the best first, those that refuse last. Quick: no site is asked."""
    config = get_config()
    sites = read_sites(config)
    return [
        SiteOffer(
            site, offer, 0 if site.is_home else needs.to_send(site.name) + needs.bytes_out, sites.currency
        )
        for offer in rank(seen_sites(config), needs)
        if (site := sites[offer.site])
    ]


def settle(wish: str, project: Project, tool: Tool, values: Mapping[str, object], movies: list[str]) -> str:
    """The name of the site that a run with this wish goes to; empty: it stays here.

    Raises InvalidInput (`where`) with a site's own reasons if it cannot take the run, or is not known.
    """
    wish = wish.strip() or AUTOMATIC
    if not has_choice():
        if wish in (AUTOMATIC, HERE):
            return ""
        raise _refused(f"There is no site {wish!r}; this service computes on its own machine only.")
    try:
        site = choose(wish, needs_of(project, tool, values, movies), get_config())
    except InvalidInput as e:
        raise _refused(str(e)) from e
    return "" if site.is_home else site.name


def _refused(text: str) -> InvalidInput:
    return InvalidInput(errors={"where": text})
