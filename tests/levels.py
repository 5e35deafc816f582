"""How many examples the tests of properties try: few and always the same ones, so that a run can be repeated.

`SCIPION_CLOUD_EXAMPLES=20` makes it twenty times as many, and others in each run.
"""

import os

from hypothesis import HealthCheck, settings

_TIMES = int(os.environ.get("SCIPION_CLOUD_EXAMPLES", "0"))


def examples(count: int) -> int:
    """What `count` examples of the test command are at this level."""
    return count * max(_TIMES, 1)


def choose_level() -> None:
    """Let Hypothesis work at this level. How long an example takes says nothing on a machine that is busy."""
    fixed = {} if _TIMES else {"derandomize": True, "database": None}
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings.register_profile(
        "level", max_examples=examples(50), deadline=None, suppress_health_check=checks, **fixed
    )
    settings.load_profile("level")
