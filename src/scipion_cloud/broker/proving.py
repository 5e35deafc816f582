"""Whether a site works, end to end: one step after the other, each with what it found or how to mend it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from scipion_cloud.broker.proof import Fault, Proof
from scipion_cloud.config import Config
from scipion_cloud.errors import ScipionCloudError
from scipion_cloud.sites import state
from scipion_cloud.sites.model import Site

WAIT = 900.0  # s for a job to start and end; nodes may have to be made


@dataclass(frozen=True)
class Step:
    """What was tried, and what came of it."""

    name: str
    ok: bool
    text: str  # what was found, or what is wrong and how to mend it
    seconds: float


def prove(site: Site, config: Config, wait: float = WAIT) -> Iterator[Step]:
    """Try all that a run at a site needs, each step when it is asked for; ends with the first that fails.

    The outcome is kept, and shown to operators. `wait`: seconds for each of the jobs.
    """
    steps: list[Step] = []
    for name, work in Proof(site, config, wait).steps():
        begun = time.monotonic()
        try:
            text, ok = work(), True
        except (Fault, ScipionCloudError, OSError) as e:
            text, ok = str(e), False
        steps.append(Step(name, ok, text, time.monotonic() - begun))
        yield steps[-1]
        if not ok:
            break
    told = [{"name": s.name, "ok": s.ok, "text": s.text} for s in steps]
    when = datetime.now(UTC).isoformat(timespec="seconds")
    state.change(config, site.name, tested={"when": when, "ok": all(s.ok for s in steps), "steps": told})
