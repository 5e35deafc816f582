"""The programs that slurmctld runs: they must be quick, and get no PATH.

To resume and to suspend they only ring: what Slurm wants is written in its nodes' states, and stays there
until the controller looks, be it dead now. So no request can be lost, and none can be done twice.
"""

import os
import shlex
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

RESUME, SUSPEND, PROLOG, TASK_PROLOG = "resume", "suspend", "prolog", "task-prolog"

# `<>` does not wait for a reader; without a FIFO it would make a file
_RING = """\
#!/bin/sh
[ -p {bell} ] && echo {what} "$1" 1<>{bell}
exit 0
"""
# Slurm looks for nodes that came up only every half minute before it starts a batch job on them, but at once
# when this program ends
_PROLOG = """\
#!/bin/sh
PATH=/usr/local/bin:/usr/bin:/bin SLURM_CONF={conf}
export PATH SLURM_CONF
while :; do
    nodes=$(scontrol --oneliner show node "$SLURM_JOB_NODELIST") || nodes=POWERING_UP
    case $nodes in *POWERING_UP* | *POWERED_DOWN* | *NOT_RESPONDING*) ;; *) exit 0 ;; esac
    job=$(scontrol --oneliner show job "$SLURM_JOB_ID" 2>&1)
    case $job in *JobState=CONFIGURING*) ;; *JobState=* | *"Invalid job id"*) exit 0 ;; esac
    sleep 0.1
done
"""


def write_programs(folder: Path, conf: Path, more: Mapping[str, str]) -> None:
    """Write the three programs, and more by name, into `folder`; `conf` is the cluster's slurm.conf."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    bell = shlex.quote(str(_bell(folder)))
    texts = {what: _RING.format(bell=bell, what=what) for what in (RESUME, SUSPEND)}
    texts[PROLOG] = _PROLOG.format(conf=shlex.quote(str(conf)))
    texts |= more
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            fresh = folder / f"{name}.new"
            fresh.write_text(text)
            fresh.chmod(0o755)
            fresh.replace(path)


def listen(folder: Path, ring: Callable[[], None]) -> None:
    """Call `ring` from a thread whenever Slurm asks for something, as long as this process lives."""
    bell = _bell(folder)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not bell.is_fifo():
        bell.unlink(missing_ok=True)
        os.mkfifo(bell, 0o600)
    fd = os.open(bell, os.O_RDWR | os.O_CLOEXEC)  # also for writing: it then never comes to its end
    threading.Thread(target=_hear, args=(fd, ring), name="power", daemon=True).start()


def _hear(fd: int, ring: Callable[[], None]) -> None:
    while os.read(fd, 65536):
        ring()


def _bell(folder: Path) -> Path:
    return folder / "bell"
