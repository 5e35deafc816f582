"""What is kept of a site between two looks: `<home>/sites/<name>.json`, replaced whole under a lock."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from scipion_cloud.config import Config
from scipion_cloud.errors import ConfigError
from scipion_cloud.jobs import wire
from scipion_cloud.sites.model import Site
from scipion_cloud.sites.now import TYPICAL, SiteNow
from scipion_cloud.sites.reading import read_sites

T = TypeVar("T")

LEAST = 1e6  # bytes: a shorter transfer tells nothing of a link's speed
_WEIGHT = 0.3  # of the last transfer among all earlier ones


def seen_sites(config: Config) -> list[SiteNow]:
    """All sites as they were seen last, the home first. Quick: nothing is asked of any site.

    Raises ConfigError for a wrong `sites.toml`.
    """
    return [seen_site(site, config) for site in read_sites(config)]


def seen_site(site: Site, config: Config) -> SiteNow:
    """One site as it was seen last."""
    kept = read(config, site.name)
    seen, drained, away = (kept.get(part) or {} for part in ("seen", "drained", "unreachable"))
    return SiteNow(
        site,
        seen=_time(seen.get("when")),
        drained=drained.get("why", ""),
        drained_since=_time(drained.get("since")),
        unreachable=away.get("why", ""),
        unreachable_since=_time(away.get("since")),
        nodes=_decoded(wire.node_of, seen.get("nodes", ())),
        jobs=_decoded(wire.info_of, seen.get("jobs", ())),
        queued=seen.get("queued", 0),
        running=seen.get("running", 0),
        typical=seen.get("typical", TYPICAL),
        used_gb=kept.get("used_gb"),
        free_gb=seen.get("free_gb"),
        bytes_per_second=(kept.get("link") or {}).get("bytes_per_second"),
        version=seen.get("version", ""),
        use=tuple(map(tuple, kept.get("use") or ())),
        tested=kept.get("tested"),
    )


def drain(config: Config, site: Site, why: str = "", by: str = "") -> None:
    """Let a site take no new jobs; what is there goes on. Again, it changes the reason."""
    since = (read(config, site.name).get("drained") or {}).get("since") or _now()
    change(
        config, site.name, drained={"why": why.strip() or "drained by an operator", "since": since, "by": by}
    )


def resume(config: Config, site: Site) -> None:
    """Let a site take jobs again."""
    change(config, site.name, drained=None)


def note_transfer(config: Config, name: str, size: int, seconds: float) -> None:
    """A transfer of `size` bytes to or from a site has taken so long; short ones are not counted."""
    if size < LEAST or seconds <= 0:
        return
    with _changing(config, name) as kept:
        speed = size / seconds
        before = (kept.get("link") or {}).get("bytes_per_second")
        mean = speed if before is None else (1 - _WEIGHT) * before + _WEIGHT * speed
        kept["link"] = {"bytes_per_second": mean, "when": _now()}


def note_use(config: Config, name: str, size: int) -> None:
    """There are so many bytes of ours in a site's area."""
    change(config, name, used_gb=size / 1e9)


def change(config: Config, name: str, **parts: Any) -> None:
    """Replace parts of what is kept; None takes one away."""
    with _changing(config, name) as kept:
        kept.update(parts)


def read(config: Config, name: str) -> dict[str, Any]:
    """What is kept; nothing if there is nothing, or it cannot be understood: it will be found out again."""
    try:
        content = json.loads(_file(config, name).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextlib.contextmanager
def _changing(config: Config, name: str) -> Iterator[dict[str, Any]]:
    """What is kept, to be changed within the block. Raises ConfigError when it cannot be written."""
    file = _file(config, name)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (file.parent / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = read(config, name)
            yield kept
            fresh = file.with_name(f".{file.name}.new")
            with fresh.open("w") as stream:
                json.dump({key: value for key, value in kept.items() if value is not None}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            fresh.replace(file)
    except OSError as e:
        raise ConfigError(f"{file} cannot be written ({e.strerror}). Mend its folder or make room.") from e


def _decoded(decode: Callable[[dict[str, Any]], T], rows: Iterable[dict[str, Any]]) -> tuple[T, ...]:
    """What was seen; nothing if another version of this program has written it: the next look is near."""
    try:
        return tuple(decode(row) for row in rows)
    except (TypeError, KeyError, ValueError):
        return ()


def _file(config: Config, name: str) -> Path:
    return config.home / "sites" / f"{name}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
