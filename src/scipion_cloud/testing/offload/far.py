"""A site on this machine that is as far away as the real ones: behind sshd, its door, and a proxy."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.config import Config
from scipion_cloud.sites.looking import look
from scipion_cloud.sites.model import Site
from scipion_cloud.sites.reading import read_sites
from scipion_cloud.testing.servers.proxy import Proxy, fault_proxy
from scipion_cloud.testing.servers.site_host import Login, SiteHost, site_host

NAME = "far"


@dataclass(frozen=True)
class Far:
    """The site, and what can be done to the way there."""

    config: Config  # of the home
    host: SiteHost
    login: Login
    proxy: Proxy

    @property
    def area(self) -> Path:
        """Its working area."""
        return self.login.area

    @property
    def site(self) -> Site:
        """As `sites.toml` describes it."""
        return read_sites(self.config)[NAME]

    def look(self) -> None:
        """Let the home know how the site is, as the controller does every half a minute."""
        look(self.site, self.config)


@contextmanager
def far_site(
    folder: Path,
    config: Config,
    options: tuple[str, ...] = ("--batch", "local", "--option", "cpus=4", "--option", "memory_gb=8"),
    env: Mapping[str, str] | None = None,
    **keys: object,
) -> Iterator[Far]:
    """A site called `far` whose files lie in `folder`, in the home's `sites.toml`, until the block ends.

    `options` are those of its `serve`, `env` is what logins see there, `keys` are more of its table.
    """
    with (
        site_host(folder / "host", dict(env or {})) as host,
        fault_proxy("127.0.0.1", host.server.port) as proxy,
    ):
        login = host.admit(folder / "far area", *options)
        known = folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{proxy.port} {host.server.host_key}\n")
        table = {
            "title": "Far away",
            "host": "127.0.0.1",
            "port": proxy.port,
            "key_file": str(login.key),
            "known_hosts_file": str(known),
            "area": str(login.area),
            **keys,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        config.home.mkdir(parents=True, exist_ok=True)
        (config.home / "sites.toml").write_text("\n".join([f"[{NAME}]", *lines, ""]))
        yield Far(config, host, login, proxy)
