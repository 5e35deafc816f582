"""A site as the command line and the API tell it."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from scipion_cloud.sites.now import SiteNow


def told(now: SiteNow) -> dict[str, Any]:
    """Everything but the way there (keys, accounts, variables), as JSON can hold it."""
    site = now.site
    return {
        "name": now.name,
        "title": site.label,
        "kind": site.kind.value,
        "batch": site.batch.value,
        "state": now.state,
        "drained": now.drained,
        "drained_since": _text(now.drained_since),
        "unreachable": now.unreachable,
        "unreachable_since": _text(now.unreachable_since),
        "seen": _text(now.seen),
        "software": list(site.software),
        "flavours": [flavour.model_dump() for flavour in now.flavours],
        "nodes": [asdict(node) for node in now.nodes],
        "cpus": now.cpus,
        "cpus_used": now.cpus_used,
        "running": now.running,
        "queued": now.queued,
        "used_gb": now.used_gb,
        "free_gb": now.free_gb,
        "bytes_per_second": now.bytes_per_second,
        "version": now.version,
        "tested": now.tested,
    }


def _text(time: datetime | None) -> str | None:
    return time.isoformat() if time else None
