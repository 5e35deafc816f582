"""From the logs of RELION and Scipion to one sentence that tells a scientist what happened and what to do."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

DISK_FULL = "The disk is full. Free some space, or ask your administrator for more, and start the run again."
OUT_OF_MEMORY = (
    "A program was killed, most likely because the machine ran out of memory. Start the run again with fewer "
    "threads, or when less is running on this machine."
)
UNREADABLE = (
    "The movie cannot be read: the file is damaged or not complete. Copy it again from the microscope."
)


@dataclass(frozen=True)
class _Known:
    """A trace that a known fault leaves in a log, and how to say it."""

    pattern: re.Pattern[str]
    message: str | Callable[[re.Match[str]], str]

    def say(self, found: re.Match[str]) -> str:
        return self.message if isinstance(self.message, str) else self.message(found)


def _gain(found: re.Match[str]) -> str:
    width, height, gain_width, gain_height = found.groups()
    remedy = (
        "Set the gain rotation to 90 or 270 degrees"
        if (gain_width, gain_height) == (height, width)
        else "Choose the gain reference that was recorded with these movies"
    )
    return (
        f"The gain reference has {gain_width} x {gain_height} pixels, but the movie has {width} x {height}. "
        f"{remedy} and start the run again."
    )


def _missing(found: re.Match[str]) -> str:
    return f"The file {found[1]} is missing: it was moved or deleted meanwhile. Upload it again."


def _few_frames(found: re.Match[str]) -> str:
    return (
        f"The movie holds only {found[1]} readable frame{'' if found[1] == '1' else 's'} and {found[2]} are "
        "needed at least: the file is damaged or not complete. Copy it again from the microscope."
    )


# In order of weight: a full disk makes many other errors, so it is looked for first.
_KNOWN = [
    _Known(re.compile(pattern), message)
    for pattern, message in (
        (r"No space left on device|Errno 28\]|database or disk is full", DISK_FULL),
        (
            r"Disk quota exceeded|Errno 122\]",
            "The disk quota is used up. Free some space, or ask your administrator for more, "
            "and start the run again.",
        ),
        (
            r"Permission denied: '?([^'\n]*)|Read-only file system",
            "A file could not be written: permission denied. "
            "Ask your administrator to look at the project's folder.",
        ),
        (
            r"died with <Signals.SIGKILL|std::bad_alloc|MemoryError|Cannot allocate memory|Out of memory",
            OUT_OF_MEMORY,
        ),
        (r"nx = (\d+) ny = (\d+) gain nx = (\d+) gain ny = (\d+)", _gain),
        (
            r"size of the image and the size of the gain reference do not match",
            "The gain reference and the movie differ in size. Choose the gain reference that was recorded "
            "with these movies, or rotate it by 90 degrees, and start the run again.",
        ),
        (r"Skipped .*: too few frames \((\d+) < (\d+)\)", _few_frames),
        (
            r"openFile cannot open|Failed to read an image data|Cannot allocate a negative number of bytes"
            r"|TIFFFetchDirectory|TIFFReadDirectory|TIFFFillStrip|TIFFReadEncodedStrip"
            r"|Not a TIFF or MDI file|LZWDecode|ZIPDecode|readMRC",
            UNREADABLE,
        ),
        (r"Cannot read file (\S+) It does not exist", _missing),
        # RELION does not check its writes; it stumbles when it reads back the model that it could not write
        (
            r"insufficient general information",
            "RELION could not write its result. The disk is probably full: free some space "
            "and start the run again.",
        ),
        (
            r"relion\w*: (?:command )?not found|No such file or directory: 'relion",
            "RELION is not installed on this machine. Ask your administrator to run `scipion-cloud doctor`.",
        ),
    )
]

_NOISE = re.compile(
    r"^\s*$|^=+|^\s*\.+$|sec \.+|~~\(,_,|^/lib/|^\S*relion_\w+\(|Backtrace|logfile\.pdf|\bgs: not found"
    r"|^Traceback|^\s+File |^\s+\^+\s*$|^(?:ERROR|WARNING|INFO):?\s*$"
)
_PREFIX = re.compile(r"^[\d\- :,.]+\s+(?:\S+\s+)?(?:ERROR|WARNING|INFO):?\s+|^(?:ERROR|WARNING|INFO):?\s+")
_BEGINS, _FAILED = "Processing movie: ", "ERROR processing movie: "
_DONE = "Will make an empty PDF-file"  # RELION's last word on a movie where there is no Ghostscript
_FILE = re.compile(r"([\w-]+)\.\w")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def known_cause(log: str) -> str:
    """What a log says happened, for the faults that we know; empty if there is none of them."""
    for known in _KNOWN:
        if found := known.pattern.search(log):
            return known.say(found)
    return ""


def explain(log: str, signal: int | None = None, reason: str = "") -> str:
    """Why a run ended without success: one or two sentences for its user. Never empty.

    `log` is the text of the failed step's logs (their ends suffice), `signal` the one that ended the job, if
    any, and `reason` what the batch system says where it ended the job itself.
    """
    if "time limit" in reason or "stopped from outside" in reason:
        return f"The run was {reason}."
    if cause := known_cause(log):
        return cause
    if signal == 9:
        return OUT_OF_MEMORY
    if signal is not None:
        return f"The run was ended from outside (signal {signal}). Start it again."
    line = last_meaningful_line(log)
    if not line:
        return "The run ended without a message. Start it again, or show its log to your administrator."
    return f"The run failed: {line} See the log, or show it to your administrator."


def explain_movies(log: str, stems: Iterable[str]) -> dict[str, str]:
    """For each movie that gave no result: why, from what the log says about it. Never empty texts.

    `stems` are the movies' safe names; only the part of `log` that deals with a movie counts.
    """
    unknown = "RELION gave no result for this movie. Look at the log for its last words on it."
    return {stem: known_cause(text) or unknown for stem, text in _parts(log, stems).items()}


def last_meaningful_line(log: str, limit: int = 300) -> str:
    """The last line that is more than decoration, at most `limit` characters, with a full stop at its end."""
    for line in reversed(_ANSI.sub("", log).replace("\r", "\n").splitlines()):
        if not _NOISE.search(line):
            text = _PREFIX.sub("", line.strip()).strip()
            if text:
                return text[:limit].rstrip(" .") + "."
    return ""


def _parts(log: str, stems: Iterable[str]) -> dict[str, str]:
    """The lines of a log that deal with each of the movies.

    On stdout they follow its name; on stderr they precede it, up to where the movie before was done.
    """
    parts: dict[str, list[str]] = {stem: [] for stem in stems}
    block: list[str] = []  # since the last movie began or ended; whose it is may be told only at its end
    inside: set[str] = set()
    for line in log.splitlines():
        named = {name for name in _FILE.findall(line) if name in parts}
        if _BEGINS in line:
            block, inside = [], named
        elif _FAILED in line:
            for stem in named - inside:
                parts[stem] += block
            block, inside = [], set()
        elif _DONE in line:
            block = []
        else:
            block.append(line)
            for stem in named | inside:
                parts[stem].append(line)
    return {stem: "\n".join(lines) for stem, lines in parts.items()}
