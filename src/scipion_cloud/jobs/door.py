"""The door of a site: the only command that the key of the service may run there. In authorized_keys:

command="python3 AREA/scipion-cloud-site.pyz door --area AREA",restrict ssh-ed25519 AAAA... scipion-cloud

It lets in `serve` and `about`, and `rsync` as a server of the files in AREA. The batch system and its options
stand in that line or in AREA/site.json: what the client says of them is not heeded. Everything else is
refused, and nothing passes through a shell.
"""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from scipion_cloud.errors import InvalidInput
from scipion_cloud.jobs import bundle, serve

OURS = (bundle.NAME, "site.json", "jobs")  # in the area; rsync neither shows nor touches them

# What an rsync client may ask of the rsync here. Missing on purpose: whatever follows links out of the area
# (-L, -k, -K, --copy-unsafe-links, --no-implied-dirs, and a list of names that comes from the client), names
# a second place (--temp-dir, --link-dest, --backup-dir, --log-file), or hides the arguments (-s).
_LETTERS = re.compile(r"-(?=\w)[AEHIJNODRSUWXbcdghlmnopqrtuvxyz]*(e\d*\.\w*)?")
_WORDS = re.compile(
    r"--(append|checksum|delay-updates|delete|delete-(after|before|delay|during|excluded)|dirs|existing|force"
    r"|fsync|ignore-existing|ignore-times|inplace|links|mkpath|(new|old)-compress|no-(W|i-r|inc-recursive)"
    r"|no-relative|no-whole-file|numeric-ids|omit-(dir|link)-times|partial|perms|relative"
    r"|remove-source-files|safe-links|size-only|sparse|stats|times|whole-file)"
)
_VALUES = re.compile(
    r"--(block-size|bwlimit|checksum-choice|compress-choice|compress-level|debug|info|log-format|max-alloc"
    r"|max-delete|max-size|min-size|modify-window|timeout)=[^/]*"
)
_ALLOWED = (_LETTERS, _WORDS, _VALUES)


def main(argv: Sequence[str], command: str) -> int:
    """Do what the client asks for with `command`, or refuse: the exit code is 2 then."""
    args = serve.parser("door").parse_args(argv)
    area = args.area.absolute()
    try:
        match _words(command):
            case ["serve", *_]:
                return serve.main(argv)
            case ["about"]:
                print(json.dumps(bundle.about()))
                return 0
            case ["rsync", *rest]:
                _become_rsync(rsync_arguments(rest, area), area)
        raise InvalidInput("This key is for serve, about and rsync alone.")
    except (InvalidInput, OSError) as e:
        print(f"This site's door refuses {command[:200]!r}: {e}", file=sys.stderr)
        return 2


def rsync_arguments(words: Sequence[str], area: Path) -> list[str]:
    """The arguments of an rsync server, if they are harmless and its paths lie in the area.

    Raises InvalidInput.
    """
    if words[:1] != ["--server"] or "." not in words:
        raise InvalidInput("rsync runs here only as the other end of an rsync.")
    end = words.index(".")
    options, paths = list(words[1:end]), list(words[end + 1 :])
    sending = options[:1] == ["--sender"]
    rest = iter(options[sending:])
    for word in rest:
        if word == "--partial-dir":
            _check_name(next(rest, ""))
        elif not any(pattern.fullmatch(word) for pattern in _ALLOWED):
            raise InvalidInput(f"The option {word} of rsync is not allowed here.")
    if not paths or (len(paths) > 1 and not sending):
        raise InvalidInput("rsync needs a path.")
    for path in paths:
        _check_path(path, area)
    return ["--server", *options, ".", *paths]


def _words(command: str) -> list[str]:
    """The command in words, without the Python and the program that the client names before them."""
    try:
        words = shlex.split(command)
    except ValueError as e:
        raise InvalidInput(f"It cannot be parsed ({e}).") from e
    for before in (1, 2):
        if len(words) > before and Path(words[before - 1]).name == bundle.NAME:
            return words[before:]
    return words


def _check_path(path: str, area: Path) -> None:
    if path.startswith("-") or ".." in path.split("/"):
        raise InvalidInput(f"The path {path!r} is not allowed here.")
    try:
        inner = (area / path).resolve().relative_to(area.resolve())  # links lead nowhere else
    except (ValueError, RuntimeError):  # RuntimeError: links in a circle
        raise InvalidInput(f"{path!r} is not in this site's area {str(area)!r}.") from None
    if not inner.parts or inner.parts[0] in OURS:
        raise InvalidInput(f"{path!r} is for this site's program alone; files belong beside it.")


def _check_name(name: str) -> None:
    if name in ("", ".", "..") or "/" in name or name.startswith("-"):
        raise InvalidInput(f"{name!r} cannot be the name of a folder for partial files.")


def _become_rsync(arguments: Sequence[str], area: Path) -> None:
    program = shutil.which("rsync")
    if program is None:
        raise InvalidInput("rsync is not installed at this site.")
    os.chdir(area)
    os.execv(program, ["rsync", *arguments])  # noqa: S606 - without a shell, as it should be
