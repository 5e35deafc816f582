"""Which batch system a queue uses: from names and texts, and back. What is not used is not read."""

import json
from collections.abc import Mapping
from pathlib import Path

from scipion_cloud.errors import ConfigError, Conflict
from scipion_cloud.jobs import index
from scipion_cloud.jobs.batch_system import BatchSystem
from scipion_cloud.jobs.indexed import IndexedBackend
from scipion_cloud.jobs.limits import Limits
from scipion_cloud.jobs.local import LocalBackend

KINDS = ("slurm", "sge")
_FILE = "system.json"


def batch_system(kind: str, options: Mapping[str, str]) -> BatchSystem:
    """The batch system of this kind. Raises ConfigError for a kind or an option that there is not."""
    if kind == "slurm":
        from scipion_cloud.jobs.slurm import Slurm  # noqa: PLC0415

        _only(kind, options, "conf", "partition", "interactive_partition")
        conf = options.get("conf")
        return Slurm(
            Path(conf) if conf else None,
            options.get("partition", ""),
            options.get("interactive_partition", ""),
        )
    if kind == "sge":
        from scipion_cloud.jobs.sge import GridEngine  # noqa: PLC0415

        return GridEngine.from_options(options)
    raise ConfigError(f"There is no batch system {kind!r}; it can be {', '.join(('local', *KINDS))}.")


def _only(kind: str, options: Mapping[str, str], *names: str) -> None:
    if unknown := sorted(options.keys() - set(names)):
        raise ConfigError(f"The batch system {kind} knows {', '.join(names)}, but not {', '.join(unknown)}.")


def write_system(spool: Path, kind: str, options: Mapping[str, str]) -> None:
    """Have the queue in this folder use a batch system from now on; "local" for none.

    What still waits on this machine goes to the batch system then; from a batch system there is no way for
    its jobs: raises Conflict while some are live.
    """
    if kind != "local":
        batch_system(kind, options)
    before, _ = read_system(spool)
    if before not in ("local", kind) and (live := _live(spool)):
        raise Conflict(
            f"{live} jobs are still in the batch system {before}. Wait for them, or cancel them with "
            "`scipion-cloud job cancel`, and then change the batch system."
        )
    spool.mkdir(0o700, parents=True, exist_ok=True)
    temporary = spool / (_FILE + ".new")
    temporary.write_text(json.dumps({"kind": kind, "options": dict(options)}))
    temporary.replace(spool / _FILE)


def _live(spool: Path) -> int:
    with index.reading(spool) as db:
        count: int = db.execute("SELECT count(*) FROM jobs WHERE ended IS NULL AND batch != ''").fetchone()[0]
    return count


def read_system(spool: Path) -> tuple[str, dict[str, str]]:
    """Which batch system the queue in this folder uses: kind and options. Raises ConfigError."""
    path = spool / _FILE
    try:
        content = json.loads(path.read_text())
        return str(content["kind"]), {str(k): str(v) for k, v in content["options"].items()}
    except FileNotFoundError:
        return "local", {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise ConfigError(f"{path} cannot be used ({e}). Remove it, and start Scipion Cloud again.") from e


def backend_at(spool: Path, limits: Limits | None = None) -> IndexedBackend:
    """The queue in this folder; `limits` are for this machine, and count if it is the one that computes."""
    kind, options = read_system(spool)
    if kind == "local":
        return LocalBackend(spool, limits)
    from scipion_cloud.jobs.batch import BatchBackend  # noqa: PLC0415

    return BatchBackend(spool, batch_system(kind, options))
