"""Which names an uploaded file may have inside the data folder."""

import unicodedata

from scipion_cloud.errors import InvalidInput

PARTS = ".parts"  # the hidden folder of what has not arrived whole
_MAX_NAME = 255  # bytes, of every common file system
_MAX_PATH = 1024  # characters, of the table
_MAX_DEPTH = 32
_UNSEEN = {"Cc", "Zl", "Zp", "Cs"}  # control characters, line and paragraph separators, half characters


def clean_path(path: str) -> str:
    """`path` itself if it may be used, relative to the data folder, with forward slashes.

    Raises InvalidInput with the reason and what to do.
    """
    shown = show(path)
    if not path:
        raise InvalidInput("The file has no name; give it one and send it again.")
    if any(unicodedata.category(c) in _UNSEEN for c in path):
        raise InvalidInput(f"The name “{shown}” has a line break or another control character; rename it.")
    if path.startswith("/"):
        raise InvalidInput(f"“{shown}” is an absolute path; names are relative to the data folder.")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise InvalidInput(f"“{shown}” names no file inside the data folder; leave out '.', '..' and '//'.")
    if parts[0] == PARTS:
        raise InvalidInput(f"“{PARTS}” is kept for files that have not arrived whole; rename the folder.")
    if len(path) > _MAX_PATH or len(parts) > _MAX_DEPTH or any(len(p.encode()) > _MAX_NAME for p in parts):
        raise InvalidInput(
            f"“{shown[:60]}…” is too long; shorten it to at most {_MAX_NAME} bytes a name, "
            f"{_MAX_PATH} characters and {_MAX_DEPTH} folders."
        )
    return path


def decode_name(raw: bytes) -> str:
    """A name as it came over the wire. Raises InvalidInput if it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        shown = raw.decode(errors="backslashreplace")
        raise InvalidInput(f"The name “{shown}” is not UTF-8 text; rename the file and send it again.") from e


def show(path: str) -> str:
    """`path` as it can be printed whatever bytes it holds; one line."""
    try:
        raw = path.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a character that stands for no byte either
        raw = path.encode(errors="backslashreplace")
    text = raw.decode(errors="backslashreplace")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _UNSEEN else c for c in text
    )


def human(size: int) -> str:
    """Bytes in decimal units, as disks are sold: 1.5 GB."""
    value = float(min(size, 10**18))  # an announcement can hold any number
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
