"""The way to a site: ssh for words, rsync over the same connection for files.

The key of this service alone is used, the host's key must be known, nothing is forwarded, and no password is
ever asked for. All that goes to one site shares one connection (ControlMaster).
"""

import hashlib
import os
import shlex
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scipion_cloud.config import Config
from scipion_cloud.errors import ConfigError
from scipion_cloud.sites.model import Batch, Site

if TYPE_CHECKING:
    from scipion_cloud.jobs import JobBackend
    from scipion_cloud.jobs.remote import Channel

BUNDLE = "scipion-cloud-site.pyz"
_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "GlobalKnownHostsFile": "none",
    "UpdateHostKeys": "no",
    "IdentityAgent": "none",
    "IdentitiesOnly": "yes",
    "PreferredAuthentications": "publickey",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
    "RequestTTY": "no",
    "ConnectTimeout": "20",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "2",  # a dead link is noticed after 15 s
    "ControlMaster": "auto",
    "ControlPersist": "60",
    "LogLevel": "ERROR",
}


def channel(site: Site, config: Config) -> "Channel":  # noqa: ARG001 - a way there may need it
    """How to talk to the program that serves a site's jobs. Raises ConfigError without key or host keys."""
    from scipion_cloud.jobs.remote import Channel  # noqa: PLC0415 - the batch system starts in milliseconds

    return Channel(tuple(serve_command(site)), f"The site {site.label}")


def serve_command(site: Site) -> list[str]:
    """The command, run here, at whose other end the jobs of a site are served. Raises ConfigError."""
    if not site.host:
        return [sys.executable, "-m", "scipion_cloud.jobs.serve", *serving(site)]
    there = [site.python, str(bundle(site)), "serve", *serving(site)]
    return [*rsync_shell(site), destination(site), shlex.join(there)]


def about_command(site: Site) -> list[str]:
    """The command, run here, that prints what our program at a site with a host is, as JSON."""
    there = [site.python, str(bundle(site)), "about"]
    return [*rsync_shell(site), destination(site), shlex.join(there)]


def rsync_shell(site: Site) -> list[str]:
    """What `rsync --rsh` runs, and ssh without a destination; empty for a site that needs no SSH.

    Raises ConfigError when the key or the known hosts are missing, or the key is not private.
    """
    if not site.host:
        return []
    key, known = _trusted(site)
    options = {**_OPTIONS, "IdentityFile": str(key), "UserKnownHostsFile": str(known)}
    options["ControlPath"] = str(_control_path(site))
    words = [word for name, value in options.items() for word in ("-o", f"{name}={quoted(value)}")]
    user = ["-l", site.user] if site.user else []
    return ["ssh", "-F", "none", "-T", "-a", "-x", *words, *user, "-p", str(site.port)]


def destination(site: Site) -> str:
    """The host, as the last option of ssh."""
    return site.host


def rsync_path(site: Site, path: Path) -> str:
    """A path at a site as rsync wants it: `host:/path`, or just the path where there is no SSH."""
    if not site.host:
        return str(path)
    return f"{f'[{site.host}]' if ':' in site.host else site.host}:{path}"


def bundle(site: Site) -> Path:
    """Where our program lies at a site."""
    return area(site) / BUNDLE


def area(site: Site) -> Path:
    """The working area of a site that is not home. Raises ConfigError for home, which has none."""
    if site.area is None:
        raise ConfigError(f"{site.name} is the home site: it has no working area for jobs of others.")
    return site.area


def backend(site: Site, config: Config) -> "JobBackend":
    """The batch system of a site. Raises ConfigError as `rsync_shell` does."""
    if site.is_home:
        from scipion_cloud.jobs import backend_for  # noqa: PLC0415

        return backend_for(config)
    from scipion_cloud.jobs.remote import RemoteBackend  # noqa: PLC0415

    return RemoteBackend(channel(site, config))


def batch_options(site: Site) -> dict[str, str]:
    """What `jobs.systems.batch_system` needs to know of a site's batch system."""
    options = dict(site.options)
    for key in ("partition", "interactive_partition"):
        if value := getattr(site, key):
            options[key] = value
    if site.batch is Batch.LOCAL and site.max_cpus:
        options.setdefault("cpus", str(site.max_cpus))
    return options


def serving(site: Site) -> list[str]:
    """The options of `jobs.serve` for a site."""
    options = [word for pair in batch_options(site).items() for word in ("--option", "=".join(pair))]
    return ["--area", str(area(site)), "--batch", site.batch.value, *options]


def _trusted(site: Site) -> tuple[Path, Path]:
    key, known = site.key_file, site.known_hosts_file
    if key is None or known is None:
        raise ConfigError(f"The site {site.name} needs key_file and known_hosts_file in sites.toml.")
    if not key.is_file():
        make = shlex.join(["ssh-keygen", "-t", "ed25519", "-N", "", "-f", str(key)])
        raise ConfigError(
            f"The site {site.name} has no key: `scipion-cloud site install {site.name}` makes it and prints "
            f"the line for its operators; by hand, run: {make}"
        )
    if key.stat().st_mode & 0o077:
        raise ConfigError(
            f"{key} is a private key that others can read. Run: chmod 600 {shlex.quote(str(key))}"
        )
    if not known.is_file():
        raise ConfigError(
            f"The host keys of the site {site.name} are not known. Run `ssh-keyscan -p {site.port} "
            f"{site.host} > {shlex.quote(str(known))}`, and compare them with what its operators say."
        )
    return key, known


def quoted(value: str) -> str:
    """As ssh's configuration wants it: a space parts words, a percent sign begins a name of its own."""
    text = value.replace("%", "%%") if "/" in value else value
    return f'"{text}"' if " " in text else text


def _control_path(site: Site) -> Path:
    """A short path, for the system takes 107 bytes: one for each account, host, key and trust."""
    facts = repr((site.host, site.port, site.user, str(site.key_file), str(site.known_hosts_file)))
    return _sockets() / hashlib.sha256(facts.encode()).hexdigest()[:16]


def _sockets() -> Path:
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    if len(str(base)) > 50:  # bytes: leave room for the rest
        base = Path("/tmp")  # noqa: S108 - a private folder is made in it
    folder = base / f"scipion-cloud-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"{folder} belongs to somebody else or is open to others; remove it.")
    return folder
