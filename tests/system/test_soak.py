"""The short form of `scipion-cloud soak`: whatever is killed, starved or cut off, nothing saved is lost."""

from pathlib import Path

import pytest

from scipion_cloud.testing.soak.plan import Row, faulted, killed, starved

SEED = "short"


def holds(row: Row) -> None:
    assert not row.loss
    assert not row.trouble
    assert row.tally.generations
    assert row.tally.databases
    print(row)


@pytest.mark.parametrize(("storage", "kills"), [("posix", 3), ("s3", 1), ("sftp", 1)])
def test_kills(storage: str, kills: int, tmp_path: Path) -> None:
    row = killed(storage, kills, tmp_path / "soak", SEED, print, light=True)
    holds(row)
    assert row.phases.total() == kills


@pytest.mark.parametrize(
    ("storage", "what", "rounds"),
    [("posix", "disk full", 1), ("posix", "calls refused", 1), ("s3", "network", 1), ("sftp", "network", 1)],
)
def test_faults(storage: str, what: str, rounds: int, tmp_path: Path) -> None:
    row = faulted(storage, what, rounds, tmp_path / "soak", SEED, print, light=True)
    holds(row)
    assert row.events.total() >= rounds


def test_a_full_storage(tmp_path: Path) -> None:
    holds(starved(1, tmp_path / "soak", SEED, print))
