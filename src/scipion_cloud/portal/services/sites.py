"""The sites, for operators: how they are, and whether they take new jobs."""

from django.core.exceptions import PermissionDenied

from scipion_cloud.cluster.history import NodesNow, overview
from scipion_cloud.config import get_config
from scipion_cloud.records.models import User
from scipion_cloud.sites import state
from scipion_cloud.sites.now import SiteNow
from scipion_cloud.sites.reading import read_sites

_LONGEST = 200  # characters of a reason


def all_sites(user: User) -> list[SiteNow]:
    """All sites as they were seen last, the home first; no site is asked."""
    _need_operator(user)
    return state.seen_sites(get_config())


def currency(user: User) -> str:
    """Of all prices."""
    _need_operator(user)
    return read_sites(get_config()).currency


def elastic_nodes(user: User) -> NodesNow | None:
    """How the home's nodes came and went; None if they are always there."""
    _need_operator(user)
    return overview(get_config().home)


def one_site(user: User, name: str) -> SiteNow:
    """One of them. Raises NotFound."""
    _need_operator(user)
    config = get_config()
    return state.seen_site(read_sites(config)[name], config)


def drain_site(user: User, name: str, reason: str = "") -> SiteNow:
    """Let it take no new jobs; what is there goes on. Raises NotFound."""
    _need_operator(user)
    config = get_config()
    state.drain(config, read_sites(config)[name], " ".join(reason.split())[:_LONGEST], user.email)
    return one_site(user, name)


def resume_site(user: User, name: str) -> SiteNow:
    """Let it take jobs again. Raises NotFound."""
    _need_operator(user)
    config = get_config()
    state.resume(config, read_sites(config)[name])
    return one_site(user, name)


def _need_operator(user: User) -> None:
    if not user.is_staff:
        raise PermissionDenied("Only administrators see and change the sites.")
