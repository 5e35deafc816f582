"""What a remote site needs of us, in one file: `scipion-cloud-site.pyz`, for any Python from 3.11 on.

    scipion-cloud-site.pyz serve --area DIR ...     see `serve`
    scipion-cloud-site.pyz door --area DIR ...      the command of the service's key there, see `door`
    scipion-cloud-site.pyz supervise FOLDER ...     what the script of a batch job runs, see `supervisor`
    scipion-cloud-site.pyz schedule SPOOL           a scheduling pass where there is no batch system
    scipion-cloud-site.pyz about

It holds this package and what it imports, nothing else: no package has to be installed at a site.
"""

import io
import json
import os
import platform
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from scipion_cloud import __version__
from scipion_cloud.jobs import wire

NAME = "scipion-cloud-site.pyz"
_SOURCE = Path(__file__).absolute().parents[2]
_START = "import sys\nfrom scipion_cloud.jobs.bundle import main\nsys.exit(main(sys.argv[1:]))\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of all files in it: the same source makes the same bytes


def bundle() -> bytes:
    """The content of the file."""
    parts = [_SOURCE / "scipion_cloud" / name for name in ("__init__.py", "errors.py")]
    parts += sorted((_SOURCE / "scipion_cloud" / "jobs").glob("*.py"))
    content = io.BytesIO(b"#!/usr/bin/env python3\n")
    content.seek(0, io.SEEK_END)
    with zipfile.ZipFile(content, "a") as archive:
        _add(archive, "__main__.py", _START)
        for path in parts:
            _add(archive, path.relative_to(_SOURCE).as_posix(), path.read_text())
    return content.getvalue()


def write_bundle(path: Path) -> None:
    """Write the file, executable; one that is in use is replaced whole, and whoever uses it goes on."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(bundle())
        temporary.chmod(0o755)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # Unix, wherever it is made
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, text)


def main(argv: Sequence[str]) -> int:
    """What the file does when it is run; the exit code."""
    match argv:
        case ["serve", *rest]:
            from scipion_cloud.jobs import serve  # noqa: PLC0415 - a supervisor starts quickly

            return serve.main(rest)
        case ["door", *rest]:
            from scipion_cloud.jobs import door  # noqa: PLC0415

            return door.main(rest, os.environ.get("SSH_ORIGINAL_COMMAND", ""))
        case ["supervise", *rest]:
            from scipion_cloud.jobs import supervisor  # noqa: PLC0415

            supervisor.main(rest)
            return 0
        case ["schedule", *rest]:
            from scipion_cloud.jobs import schedule  # noqa: PLC0415

            schedule.main(rest)
            return 0
        case ["about"]:
            print(json.dumps(about()))
            return 0
    print(f"Usage: {NAME} serve|door|about; this is version {__version__}.", file=sys.stderr)
    return 2


def about() -> dict[str, object]:
    """Which version this is, and on which Python it runs."""
    return {"version": __version__, "protocol": wire.PROTOCOL, "python": platform.python_version()}
