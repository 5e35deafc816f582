"""Scipion's own `hosts.conf`: where its dialog can send a protocol, one queue a site."""

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files

from scipion_cloud.config import Config
from scipion_cloud.errors import ConfigError
from scipion_cloud.model import AUTOMATIC, HERE
from scipion_cloud.sites.model import MPI
from scipion_cloud.sites.now import SiteNow
from scipion_cloud.sites.state import seen_sites
from scipion_cloud.tools.environment import hosts_file

_HOURS = 72.0

Field = tuple[str, str, str, str]  # variable, value, label, help


def hosts_conf(sites: Sequence[SiteNow] = ()) -> str:
    """The file for these sites, the home first; without any, for the home alone as it is by default."""
    queues = {HERE: _fields([now for now in sites if now.site.is_home])}
    if away := [now for now in sites if not now.site.is_home]:
        queues |= {AUTOMATIC: _fields(sites), **{now.name: _fields([now]) for now in away}}
    template = files("scipion_cloud.broker").joinpath("scipion-hosts.conf").read_text()
    text = json.dumps(queues, indent=4).replace("\n", "\n    ")  # lines of a value are indented
    return template.replace("{parallel}", parallel_command(sites[0].site.mpi if sites else MPI)).replace(
        "{queues}", text
    )


def parallel_command(mpi: str) -> str:
    """A site's way to start programs of MPI, as `hosts.conf` wants it."""
    return mpi.replace("%", "%%").replace("{n}", "%_(JOB_NODES)d") + " %_(COMMAND)s"


def write_hosts(config: Config) -> None:
    """Let this home's desktops and tools know the sites. Raises ConfigError."""
    file, text = hosts_file(config), hosts_conf(seen_sites(config))
    try:
        if not file.exists() or file.read_text() != text:
            new = file.with_name(f"{file.name}.new")
            new.write_text(text)
            new.replace(file)
    except OSError as e:
        raise ConfigError(f"{file} cannot be written: {e.strerror}.") from e


def _fields(sites: Iterable[SiteNow]) -> list[Field]:
    """What the dialog asks for these sites."""
    found = list(sites)
    gpus = max((flavour.gpus for now in found for flavour in now.flavours), default=0)
    limits = [now.site.max_hours for now in found]
    hours = min(_HOURS, max((h or _HOURS for h in limits), default=_HOURS))
    fields = [
        ("JOB_MEMORY", "4", "Memory (GiB)", "How much the job may use; it waits until that much is free."),
        ("JOB_HOURS", f"{hours:g}", "Time limit (hours)", "The job is ended after this time."),
    ]
    if gpus:
        fields.append(("JOB_GPUS", "0", "GPUs", f"How many the job gets: {gpus} at most on one machine."))
    return fields
