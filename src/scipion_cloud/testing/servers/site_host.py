"""A remote site's host: a real sshd that lets keys in through the site's door, and nowhere else.

with site_host(folder) as host:
    login = host.admit(host.folder / "area", "--batch", "local")
    backend = RemoteBackend(login.channel())
"""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.jobs.bundle import NAME, write_bundle
from scipion_cloud.jobs.channel import Channel
from scipion_cloud.testing.servers.openssh import OpenSsh, new_key, openssh_server

PYTHON = f"{sys.executable} -I -S"  # none of our packages: a site has none


@dataclass(frozen=True)
class Login:
    """A key, and what one needs to use it."""

    key: Path
    known_hosts: Path
    port: int  # of 127.0.0.1
    area: Path

    def ssh(self, port: int | None = None) -> list[str]:
        """The ssh that rsync needs, through a proxy at another port if one is given."""
        options = {
            "IdentityFile": self.key,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.known_hosts,
            "HostKeyAlias": "site",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": 20,
            "ServerAliveInterval": 5,
            "ServerAliveCountMax": 2,
            "LogLevel": "ERROR",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", "-T", "-p", str(port or self.port), *words]

    def channel(self, port: int | None = None) -> Channel:
        """The way to the site's jobs."""
        return Channel((*self.ssh(port), "127.0.0.1", "serve"), "The site")


@dataclass(frozen=True)
class SiteHost:
    """A running host."""

    folder: Path
    server: OpenSsh
    authorized_keys: Path

    def admit(self, area: Path, *options: str) -> Login:
        """Make a working area and a key whose door leads into it; `options` are those of `serve`."""
        area.mkdir(parents=True)
        write_bundle(area / NAME)
        key = self.folder / f"key-{len(list(self.folder.glob('key-*')))}"
        door = f"{PYTHON} {shlex.join([str(area / NAME), 'door', '--area', str(area), *options])}"
        quoted = door.replace('"', '\\"')
        with self.authorized_keys.open("a") as file:
            file.write(f'command="{quoted}",restrict {new_key(key)}\n')
        return Login(key, self.folder / "known_hosts", self.server.port, area)


@contextmanager
def site_host(
    folder: Path, env: dict[str, str] | None = None, address: str = "127.0.0.1"
) -> Iterator[SiteHost]:
    """A host whose files lie in a folder, until the end of the block; `env` is added to what logins see.

    It listens at 127.0.0.1, and at `address` if that is another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = folder / "authorized_keys"
    keys.touch()
    home = folder / "home"  # nobody's own ~/.bashrc takes part
    home.mkdir(exist_ok=True)
    variables = {"PATH": os.environ["PATH"], "HOME": str(home), **(env or {})}
    seen = " ".join(f'"{name}={value}"' for name, value in variables.items())
    settings = f"SetEnv {seen}\n" + (f"ListenAddress {address}\n" if address != "127.0.0.1" else "")
    with openssh_server(folder, commands=True, authorized_keys=keys, settings=settings) as server:
        (folder / "known_hosts").write_text(f"site {server.host_key}\n")
        yield SiteHost(folder, server, keys)
