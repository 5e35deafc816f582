"""Which folders at a site are removed, and what the ledger remembers of them."""

from pathlib import Path

import pytest

from scipion_cloud.broker.ledger import Ledger, Stamp, folder_of, too_old
from scipion_cloud.errors import JobError

SIZES = {"projects/p/Runs/1": 10, "projects/p/data/a": 20, "projects/q/out/x": 30, "runs/7": 1}


@pytest.mark.parametrize(
    ("used", "busy", "most", "oldest", "gone"),
    [
        ({}, set(), None, 0.0, []),
        ({"projects/p/Runs/1": 5.0}, set(), None, 5.0, ["projects/p/data/a", "projects/q/out/x", "runs/7"]),
        ({}, {"projects/q/out", "runs/7"}, None, 1.0, ["projects/p/Runs/1", "projects/p/data/a"]),
        ({"projects/q/out": 9.0, "runs/7": 9.0}, set(), 40, 0.0, ["projects/p/Runs/1", "projects/p/data/a"]),
        ({"projects/p/data/a": 1.0, "projects/p/Runs/1": 2.0}, {"projects/q"}, 35, 0.0, [
            "runs/7", "projects/p/data/a", "projects/p/Runs/1"]),
        ({}, set(SIZES), 0, 1.0, []),
    ],
)  # fmt: skip
def test_who_goes(
    used: dict[str, float], busy: set[str], most: float | None, oldest: float, gone: list[str]
) -> None:
    assert too_old(SIZES, used, busy, most, oldest) == gone


def test_what_is_used_again_is_not_over(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "sites" / "far.sqlite")
    ledger.use(["projects/p/Runs/1/extra/\udcff", "projects/p/data/m"])
    ledger.end(["projects/p/Runs/1", "projects/p/Runs/2"])
    ledger.use(["projects/p/Runs/1/a"])
    assert ledger.over() == ["projects/p/Runs/2"]
    assert set(ledger.last_used()) == {"projects/p/Runs/1", "projects/p/data/m"}
    ledger.removed(["projects/p/Runs/2", "projects/p/data/m"])
    assert ledger.over() == []
    assert set(ledger.last_used()) == {folder_of("projects/p/Runs/1/a")}


def test_a_ledger_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "sites").write_text("a file")
    with pytest.raises(JobError, match=r"far\.sqlite cannot be used"):
        Ledger(tmp_path / "sites" / "far.sqlite").use(["projects/p/a"])


def test_what_was_sent_counts_while_it_is_the_same_here_and_was_not_removed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "sites" / "far.sqlite")
    names = ("Runs/1", "Runs/1/extra/\udcff", "Runs/10/a", "data/m", "data/n")
    files = {f"projects/p/{name}": Stamp(10, 5) for name in names}
    assert ledger.same(files) == []
    ledger.sent(files)
    changed = {"projects/p/data/m": Stamp(10, 6), "projects/p/data/new": Stamp(10, 5)}
    assert ledger.same(files | changed) == [path for path in files if path not in changed]
    ledger.sent({"projects/p/data/m": Stamp(10, 6)})
    ledger.removed(["projects/p/Runs/1", "projects/p/data/n", "projects/q"])
    assert ledger.same(files | changed) == ["projects/p/Runs/10/a", "projects/p/data/m"]
