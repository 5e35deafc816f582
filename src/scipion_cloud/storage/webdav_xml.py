"""WebDAV's XML (RFC 4918): what we ask with, and a careful reader of the answers."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from xml.parsers import expat

from scipion_cloud.errors import StorageError, StorageTransient

PROPFIND = (
    b'<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop>'
    b"<D:resourcetype/><D:getcontentlength/><D:getlastmodified/></D:prop></D:propfind>"
)
LOCKINFO = (
    b'<?xml version="1.0" encoding="utf-8"?><D:lockinfo xmlns:D="DAV:">'
    b"<D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype><D:owner>scipion-cloud</D:owner></D:lockinfo>"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DEEPEST = 32  # elements in elements
LONGEST = 64 * 1024  # bytes of one text


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource in an answer to PROPFIND."""

    href: str  # as the server wrote it
    folder: bool
    size: int  # bytes
    modified: datetime  # UTC; the epoch if the server does not tell


class Multistatus:
    """Reads an answer to PROPFIND piece by piece into `entries`; the parser never sees an entity."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._path: list[str] = []
        self._text: list[str] = []
        self._length = 0
        self._response: dict[str, str] = {}
        self._propstat: dict[str, str] = {}
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._data
        self._parser.StartDoctypeDeclHandler = self._doctype

    def read(self, chunks: Iterable[bytes]) -> list[Entry]:
        """All entries. Raises StorageTransient for a torn answer, StorageError for a hostile one."""
        try:
            for chunk in chunks:
                self._parser.Parse(chunk, False)
            self._parser.Parse(b"", True)
        except expat.ExpatError as e:
            raise StorageTransient(f"The server's list is not whole, or not XML: {e}.") from e
        return self.entries

    def _start(self, name: str, _: dict[str, str]) -> None:
        self._path.append(name)
        if len(self._path) > DEEPEST:
            raise StorageError("The server's list is nested too deeply to be one.")
        self._text, self._length = [], 0
        if name == "DAV: response":
            self._response = {}
        elif name == "DAV: propstat":
            self._propstat = {}
        elif name == "DAV: collection" and self._path[-2] == "DAV: resourcetype":
            self._propstat["folder"] = "yes"

    def _end(self, name: str) -> None:
        self._path.pop()
        parent = self._path[-1] if self._path else ""
        text = "".join(self._text).strip()
        self._text = []
        if parent == "DAV: prop" or (parent, name) == ("DAV: propstat", "DAV: status"):
            if text:
                self._propstat[name] = text
        elif parent == "DAV: response" and name in ("DAV: href", "DAV: status"):
            self._response.setdefault(name, text)
        elif name == "DAV: propstat":
            if _fine(self._propstat.get("DAV: status", "")):
                self._response |= {k: v for k, v in self._propstat.items() if k != "DAV: status"}
        elif name == "DAV: response" and _fine(self._response.get("DAV: status", "")):
            self._add(self._response)

    def _add(self, found: dict[str, str]) -> None:
        size = found.get("DAV: getcontentlength", "0")
        self.entries.append(
            Entry(
                found.get("DAV: href", ""),
                "folder" in found,
                int(size) if size.isdecimal() and "folder" not in found else 0,
                _date(found.get("DAV: getlastmodified", "")),
            )
        )

    def _data(self, text: str) -> None:
        self._length += len(text)
        if self._length > LONGEST:
            raise StorageError("The server's list holds a text that is too long to be one.")
        self._text.append(text)

    def _doctype(self, *_: object) -> None:
        raise StorageError("The server's list declares entities of its own; that is refused.")


def _fine(status: str) -> bool:
    """True for a status line of 2xx, and where there is none."""
    words = status.split()
    return len(words) < 2 or words[1].startswith("2")


def _date(text: str) -> datetime:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return EPOCH
