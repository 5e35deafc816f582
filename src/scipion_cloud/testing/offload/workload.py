"""Small jobs whose every execution leaves a line in a ledger, and whose result can be checked.

Each has a folder of its own in one project; what it reads is known without it.
"""

import hashlib
import os
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from scipion_cloud.jobs import JobSpec
from scipion_cloud.testing.offload.far import NAME

_SCRIPT = """\
set -e
printf '%s\\n' "$1" >> "$2"
sleep "$3"
mkdir -p out/deep
cat in/* alias/* | sha256sum > out/result
ln -sf "$PWD/out/result" out/deep/link
cp -r in out/deep/
"""
_NAMES = (
    b"plain",
    b"-rf",
    b"#comment",
    b";x",
    b"two\nlines",
    b"\xff\xfe",
    b" space ",
    b"*[a]?",
    b"a:b",
    "粒".encode(),
)


@dataclass(frozen=True)
class Work:
    """One job: its folder in the project, and what has to come of it."""

    key: str
    folder: str  # relative to the project
    expected: str  # SHA-256 of what its script reads
    pause: float  # s that it takes

    def spec(self, project: Path, ledger: Path) -> JobSpec:
        """As it is submitted; it notes itself in the ledger, a file at the site."""
        needs = [f"{self.folder}/{name}" for name in ("run.sh", "in", "alias")]
        return JobSpec(
            argv=("bash", "run.sh", self.key, str(ledger), f"{self.pause:.2f}"),
            cwd=project / self.folder,
            name=self.key,
            memory_gb=0.1,
            site=NAME,
            parcel={"root": str(project), "run": f"{self.folder}/out", "needs": needs, "protocol": None},
        )

    def fault(self, project: Path) -> str:
        """What is wrong with the result in this copy of the project; empty if nothing is."""
        folder = project / self.folder
        try:
            result = (folder / "out" / "result").read_text().split()[0]
            linked = (folder / "out" / "deep" / "link").read_text().split()[0]
            theirs = {p.name: p.read_bytes() for p in (folder / "out" / "deep" / "in").iterdir()}
            ours = {p.name: p.read_bytes() for p in (folder / "in").iterdir()}
        except (OSError, IndexError) as e:
            return f"{self.key}: no result ({e})"
        if self.expected not in (result, linked) or result != linked:
            return f"{self.key}: {result} in place of {self.expected}"
        return "" if theirs == ours else f"{self.key}: a folder came back changed"


def make_work(project: Path, number: int, rng: random.Random) -> Work:
    """A job with files of odd names, seen through a link as well."""
    folder = project / f"job {number}"
    (folder / "in").mkdir(parents=True)
    (folder / "run.sh").write_text(_SCRIPT)
    for name in rng.sample(_NAMES, k=4):
        (folder / "in" / os.fsdecode(name)).write_bytes(rng.randbytes(rng.choice((0, 10, 3000, 300_000))))
    (folder / "alias").symlink_to("in")
    # in the order of the shell's `*`, in the C locale
    contents = [p.read_bytes() for p in sorted((folder / "in").iterdir(), key=lambda p: os.fsencode(p.name))]
    expected = hashlib.sha256(b"".join(contents) * 2).hexdigest()
    return Work(f"job-{number}", folder.name, expected, rng.uniform(0, 2))


def executions(ledger: Path) -> Counter[str]:
    """How often each job was executed."""
    return Counter(ledger.read_text().split()) if ledger.exists() else Counter()
