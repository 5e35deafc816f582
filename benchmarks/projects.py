"""A project saved and restored, against rsync, rclone, and one file of as many bytes.

    python benchmarks/projects.py [--scale 0.1] [--rounds 3] [--storages posix,s3,sftp] [--parts small,big]
    python benchmarks/projects.py --memory 300000

All work on the same tree on a disk of our own (ext4 in a file, if we may mount it), in turns. What each has
done when it says that it is done differs: ours is on the disk and verified by BLAKE3, under a lease, and the
storage has the generations before; rsync's and rclone's is in the kernel's memory, "+ syncfs" on the disk.
Prints medians of the seconds, of the processor's seconds (the servers' are not in them), and ratios to ours:
above 1, we are faster.
"""

import argparse
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from _contenders import PLACES, Contender, Limit, Ours, Place
from _cost import Cost
from _disk import disk, settle

from scipion_cloud.testing.trees import SMALLEST, Tree, TreeSpec, append, make_tree, rewrite

PARTS = ("small", "big", "all")
STEPS = ("first save", "nothing changed", "1 % changed", "appended", "restore")
APPENDED = 1 << 20  # bytes
_RESIDENT = "ours, resident"

Costs = dict[tuple[str, str], list[Cost]]  # by step and contender


@dataclass(frozen=True)
class Run:
    """What was measured with one tree in one storage."""

    storage: str
    part: str
    tree: Tree
    costs: Costs = field(default_factory=lambda: defaultdict(list))

    def median(self, step: str, name: str) -> Cost | None:
        """Of all rounds."""
        found = self.costs.get((step, name))
        if not found:
            return None
        return Cost(median(c.wall for c in found), median(c.cpu for c in found), max(c.memory for c in found))

    def ratio(self, step: str, name: str, ours: str = "ours") -> float | None:
        """How much longer than ours it takes."""
        own, other = self.median(step, ours), self.median(step, name)
        return other.wall / own.wall if own and other else None


def main(argv: Sequence[str] | None = None) -> list[Run]:
    """Run the benchmark; all that was measured."""
    parser = argparse.ArgumentParser(description="A project saved and restored, against rsync and rclone.")
    parser.add_argument("--scale", type=float, default=0.1, help="1: 30,000 small files, 60 large ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--storages", default=",".join(PLACES))
    parser.add_argument("--parts", default="small,big", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--folder", type=Path, help="where to make the disk; else where temporary files are")
    parser.add_argument(
        "--memory", type=int, metavar="FILES", help="measure only the memory for so many files"
    )
    given = parser.parse_args(argv)
    if given.memory:
        return [_memory(given.memory, given.folder)]
    runs = []
    for part in given.parts.split(","):
        spec = _spec(part).scaled(given.scale)
        for storage in given.storages.split(","):
            with disk(given.folder, 2 + 6.5 * _bytes(spec) / 1e9) as root:
                runs.append(_measure(storage, part, spec, root, given.rounds))
            _show(runs[-1])
    return runs


def _spec(part: str) -> TreeSpec:
    spec = TreeSpec()
    return {"small": replace(spec, big=0), "big": replace(spec, small=0, links=0), "all": spec}[part]


def _bytes(spec: TreeSpec) -> float:
    return spec.small * 25e3 + spec.big * sum(spec.big_size) / 2


def _measure(storage: str, part: str, spec: TreeSpec, root: Path, rounds: int) -> Run:
    tree = make_tree(root / "work", spec)
    run = Run(storage, part, tree)
    for number in range(rounds):  # a new server each time: all begin with nothing there
        with PLACES[storage](root, tree.bytes) as place:
            _round(run, place, number, root)
        if place.files is not None:
            shutil.rmtree(place.files)
        shutil.rmtree(root / ".work.agent")
        shutil.rmtree(tree.root / ".scipion-cloud")
    return run


def _round(run: Run, place: Place, number: int, root: Path) -> None:
    tree, turn = run.tree, number % len(place.contenders)
    contenders = (*place.contenders[turn:], *place.contenders[:turn])
    tools = [c for c in contenders if not isinstance(c, Limit)]

    def push(step: str, who: Sequence[Contender]) -> None:
        for contender in who:
            settle(root)
            run.costs[step, contender.name].append(contender.push(tree.root))
        settle(root)

    push("first save", contenders)
    push("nothing changed", tools)
    for contender in tools:
        if isinstance(contender, Ours):
            run.costs["nothing changed", _RESIDENT] += contender.again(tree.root)
    if tree.small:
        rewrite(tree, 0.01, seed=2 + number)
        push("1 % changed", tools)
    append(tree, APPENDED, seed=100 + number)
    push("appended", tools)
    for contender in contenders:
        settle(root)
        target = root / "restored"
        run.costs["restore", contender.name].append(contender.pull(target))
        if not isinstance(contender, Limit):
            _check(tree, target)
        shutil.rmtree(target)
        shutil.rmtree(root / ".restored.agent", ignore_errors=True)


def _check(tree: Tree, target: Path) -> None:
    """Nobody gets away with less than all of it."""
    for name in (*tree.small[::50], *tree.big[:2]):
        assert (tree.root / name).read_bytes() == (target / name).read_bytes(), name  # noqa: S101
    for name in (*tree.small, *tree.big):
        assert (tree.root / name).stat().st_size == (target / name).stat().st_size, name  # noqa: S101
    assert all((target / name).is_symlink() for name in tree.links)  # noqa: S101


def _memory(files: int, folder: Path | None) -> Run:
    """The most memory that saves and a restore of so many tiny files take."""
    spec = TreeSpec(small=files, big=0, links=0)
    with disk(folder, 2 + files * 13e3 / 1e9) as root:
        tree = make_tree(root / "work", spec, most=SMALLEST)
        run = Run("posix", f"{files} tiny files", tree)
        ours = Ours(f"file://{root}/store")
        run.costs["first save", ours.name].append(ours.push(tree.root))
        run.costs["nothing changed", ours.name].append(ours.push(tree.root))
        run.costs["nothing changed", _RESIDENT] += ours.again(tree.root, 3)
        rewrite(tree, 0.01, seed=2)
        run.costs["1 % changed", ours.name].append(ours.push(tree.root))
        run.costs["restore", ours.name].append(ours.pull(root / "restored"))
    _show(run)
    for step in STEPS:
        if told := run.median(step, ours.name):
            print(f"  {step:18}{told.memory / 1e6:6.0f} MB")
    return run


def _show(run: Run) -> None:
    files = len(run.tree.small) + len(run.tree.big)
    print(
        f"\n{run.storage}, {run.part}: {files} files, {run.tree.bytes / 1e6:.0f} MB, "
        f"{len(run.tree.links)} links (load {os.getloadavg()[0]:.0f} on {len(os.sched_getaffinity(0))} cores)"
    )
    names = list(dict.fromkeys(name for _, name in run.costs))
    print(f"  {'':18}" + "".join(f"{name:>30}" for name in names))
    for step in STEPS:
        cells = []
        for name in names:
            cost, ratio = run.median(step, name), run.ratio(step, name)
            told = f"{cost.wall:.2f} s, cpu {cost.cpu:.2f}" if cost else ""
            cells.append(f"{told:>22}" + (f" x {ratio:5.2f}" if ratio and name != "ours" else " " * 8))
        print(f"  {step:18}" + "".join(cells), flush=True)
    ratios = {name: run.ratio("nothing changed", name, _RESIDENT) for name in names if "ours" not in name}
    told = ", ".join(f"{name} x {ratio:.1f}" for name, ratio in ratios.items() if ratio)
    print(f"  nothing changed, to an agent: {told or '-'}", flush=True)


if __name__ == "__main__":
    main()
