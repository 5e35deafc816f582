"""munge: the service by which Slurm's programs know each other. One of our own, in one folder."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

KEY_BYTES = 128


def make_key(folder: Path) -> Path:
    """The key in this folder, made on first use; who has it can act as anybody in the cluster."""
    key = folder / "key"
    folder.mkdir(mode=0o755, exist_ok=True)
    if not key.exists():
        fresh = folder / "key.new"
        fresh.touch(mode=0o600)
        fresh.write_bytes(os.urandom(KEY_BYTES))
        fresh.replace(key)
    return key


def munged(folder: Path) -> list[str]:
    """The command that serves this folder's key, in the foreground."""
    return [
        "munged",
        "--foreground",
        "--force",  # above us there are private folders, which it takes for a fault
        f"--socket={folder}/socket",
        f"--key-file={folder}/key",
        f"--pid-file={folder}/munged.pid",
        f"--seed-file={folder}/seed",
        "--num-threads=2",
    ]


def ask(folder: Path) -> list[str]:
    """The command that succeeds once the service gives credentials."""
    return ["munge", f"--socket={folder}/socket", "--no-input", "--output=/dev/null"]


def answers(folder: Path, environ: Mapping[str, str]) -> bool:
    """True once the service gives credentials."""
    try:
        done = subprocess.run(ask(folder), env=environ, capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
