"""URIs of large results. Only the owner of a result can read it, with `resources/read`."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote

SCHEME = "toolbus-result:"
USUAL_LENGTH = 64 << 10  # default bytes of one piece
MAX_LENGTH = 1 << 20
_FORM = re.compile(
    r"toolbus-result:([A-Za-z0-9_.-]+)/([^/?#\s]{1,3500})/([A-Za-z0-9_-]{32})(?:\?([!-~]{0,2048}))?"
)


@dataclass(frozen=True, slots=True)
class Handle:
    """Identification of a stored result of one tool of a server. `secret` is unguessable."""

    server: str
    tool: str
    secret: str

    def uri(self, offset: int = 0, length: int = 0) -> str:
        """Return the URI of a piece. Without a length, it is the URI of the beginning."""
        named = f"{SCHEME}{self.server}/{quote(self.tool, safe='')}/{self.secret}"
        return f"{named}?offset={offset}&length={length}" if length else named


@dataclass(frozen=True, slots=True)
class ResultPiece:
    """A requested piece of a stored result, by `offset` and `length` in bytes.

    If `select` is set, this expression replaces the offset.
    """

    handle: Handle
    offset: int = 0
    length: int = USUAL_LENGTH
    select: str = ""


def parse_result_uri(uri: str) -> ResultPiece | None:
    """Return the piece that a URI refers to; None if the URI has another form."""
    found = _FORM.fullmatch(uri) if uri.startswith(SCHEME) else None
    if found is None:
        return None
    handle = Handle(found[1], unquote(found[2]), found[3])
    query = parse_qs(found[4] or "")
    offset, length = _number(query, "offset", 0), _number(query, "length", USUAL_LENGTH)
    return ResultPiece(handle, offset, min(length, MAX_LENGTH), query.get("select", [""])[-1])


def authorized_name(name: str) -> str:
    """Return the name whose grants apply to a resource. For a stored result this is its tool."""
    piece = parse_result_uri(name)
    return name if piece is None else piece.handle.tool


def _number(query: dict[str, list[str]], name: str, usual: int) -> int:
    text = query.get(name, [""])[-1]
    valid = text.isascii() and text.isdigit() and len(text) < 16  # noqa: PLR2004
    return int(text) if valid else usual
