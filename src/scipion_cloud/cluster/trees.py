"""All processes of one node on this machine: its slurmd, and whatever its jobs have started."""

from collections.abc import Collection, Sequence
from pathlib import PurePath

import psutil

from scipion_cloud.jobs.processes import TOKEN, Found, end_all, started

MARK = "SCIPION_CLOUD_NODE"  # names the node in the environment of what it runs
_SLURMS = "SLURMD_NODENAME"  # Slurm names it in the environment of a job's processes

Marked = Sequence[tuple[str, str]]
"""Nodes as name and mark. Names carry their cluster's id, so that no other cluster's job is meant."""


def end_nodes(nodes: Marked, first: Collection[int], limit: float) -> Found:
    """Kill all processes of nodes. Returns what is left after `limit` seconds.

    The nodes' `first` processes and Slurm's go before the jobs': they would tell that these were killed, and
    not that the node has died.
    """
    seen = node_processes(nodes)
    slurms = _step_daemons(nodes)
    heads = {pid: start for pid, start in seen.items() if pid in first} | slurms
    end_all(lambda: _alive(heads), grace=0, limit=limit)
    return end_all(lambda: _alive(seen) | node_processes(nodes), grace=0, limit=limit)


def node_processes(nodes: Marked) -> Found:
    """The live processes that carry a node's mark or name, with all below them and all of their jobs.

    What can escape: a process that dropped its environment and its parents.
    """
    parents, environs = {}, {}
    for process in psutil.process_iter():
        try:
            parents[process.pid] = process.ppid()
            environs[process.pid] = process.environ()
        except psutil.Error:  # ended, or another user's
            continue
    names, marks = {name for name, _ in nodes}, {mark for _, mark in nodes}
    found = {
        pid
        for pid, environ in environs.items()
        if environ.get(MARK) in marks or environ.get(_SLURMS) in names
    } | set(_step_daemons(nodes))
    while True:
        jobs = {token for pid in found if (token := environs.get(pid, {}).get(TOKEN))}
        more = {pid for pid, parent in parents.items() if parent in found}
        more |= {pid for pid, environ in environs.items() if environ.get(TOKEN) in jobs}
        if more <= found:
            break
        found |= more
    return {pid: start for pid in found if (start := started(pid)) is not None}


def _step_daemons(nodes: Marked) -> Found:
    """The slurmstepds, which overwrite their environment, by the socket that each of them serves."""
    beginnings = tuple(f"{name}_" for name, _ in nodes)
    sockets = psutil.net_connections("unix")
    pids = {s.pid for s in sockets if s.pid and PurePath(str(s.laddr)).name.startswith(beginnings)}
    return {pid: start for pid in pids if (start := started(pid)) is not None}


def _alive(found: Found) -> Found:
    return {pid: start for pid, start in found.items() if started(pid) == start}
