"""Which site a wish comes to."""

from scipion_cloud.broker.rank import Needs, Offer, rank
from scipion_cloud.config import Config
from scipion_cloud.errors import InvalidInput, NotFound
from scipion_cloud.model import AUTOMATIC
from scipion_cloud.sites.model import Site
from scipion_cloud.sites.reading import read_sites
from scipion_cloud.sites.state import seen_sites


def choose(wish: str, needs: Needs, config: Config) -> Site:
    """The site with this name, or the best one for `automatic`, by what was last seen of them; none is asked.

    Raises InvalidInput with the reasons of those that cannot take the job.
    """
    sites = read_sites(config)
    offers = rank(seen_sites(config), needs)
    if wish == AUTOMATIC:
        if not offers[0].possible:
            told = " ".join(_refusal(sites[offer.site], offer) for offer in offers)
            raise InvalidInput(f"No site can take this now. {told}")
        return sites[offers[0].site]
    try:
        site = sites[wish]
    except NotFound as e:
        raise InvalidInput(str(e)) from e
    offer = next(offer for offer in offers if offer.site == site.name)
    if not offer.possible:
        raise InvalidInput(_refusal(site, offer))
    return site


def _refusal(site: Site, offer: Offer) -> str:
    return f"{site.label} cannot take this: it {' and '.join(offer.reasons)}."
