"""What `doctor` looks at. Nothing here changes anything."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from scipion_cloud.config import Config
from scipion_cloud.provision.checks import batch, installation, machine, programs
from scipion_cloud.provision.checks.verdict import Check, Verdict

__all__ = ["Check", "Verdict", "examine"]

EXAMINERS: tuple[Callable[[Config], list[Check]], ...] = (
    programs.examine,
    installation.packages,
    installation.scipion,
    installation.database,
    batch.examine,
    machine.folders,
    machine.disk,
    machine.port,
    machine.computer,
    machine.clock,
    machine.locale,
)


def examine(config: Config) -> list[Check]:
    """All checks, in the order in which a person would mend things; takes a few seconds."""
    with ThreadPoolExecutor() as pool:
        return [check for checks in pool.map(lambda look: look(config), EXAMINERS) for check in checks]
