"""The batch system that the home's jobs go through."""

from collections import Counter

from scipion_cloud.config import Config
from scipion_cloud.errors import ConfigError, JobError
from scipion_cloud.jobs.batch_system import BatchSystem
from scipion_cloud.jobs.systems import batch_system, read_system
from scipion_cloud.provision import apt
from scipion_cloud.provision.checks.verdict import Check, missing, ok, warning

NAME = "Batch system"


def examine(config: Config) -> list[Check]:
    """Whether it answers, and which nodes it has."""
    try:
        kind, options = read_system(config.jobs)
        if kind == "local":
            return [ok(NAME, "this machine's own queue")]
        system = batch_system(kind, options)
    except ConfigError as e:
        return [missing(NAME, str(e), "Mend sites.toml, or start Scipion Cloud with --slurm or without.")]
    ours = options.get("conf", "").startswith(f"{config.home.absolute()}/")
    if ours and apt.is_debian() and (absent := apt.missing(apt.SLURM)):
        return [missing("Slurm", f"{', '.join(absent)} not installed", apt.advice(*absent))]
    return [_look(system, {"slurm": "Slurm", "sge": "Grid Engine"}[kind], ours)]


def _look(system: BatchSystem, name: str, ours: bool) -> Check:
    try:
        nodes = system.nodes()
    except JobError as e:
        if ours:
            return warning(name, "our own, which does not run now", "scipion-cloud up --slurm starts it")
        return missing(name, str(e), f"See whether {name} runs, and whether this machine may submit jobs.")
    states = Counter(node.state for node in nodes)
    detail = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    bad = [node for node in nodes if node.state in ("down", "drained")]
    if bad:
        detail += "\n" + "\n".join(f"{node.name}: {node.reason or node.state}" for node in bad)
        return warning(name, f"nodes: {detail}", "Jobs wait for these nodes until an operator resumes them.")
    return ok(name, f"nodes: {detail or 'none'}")
