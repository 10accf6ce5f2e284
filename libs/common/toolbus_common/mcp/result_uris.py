"""Handles of results too large to tell: URIs read with `resources/read`, by who made them only."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote

SCHEME = "toolbus-result:"
USUAL_LENGTH = 64 << 10  # bytes of one piece, where none is asked for
MOST_LENGTH = 1 << 20
_FORM = re.compile(
    r"toolbus-result:([A-Za-z0-9_.-]+)/([^/?#\s]{1,3500})/([A-Za-z0-9_-]{32})(?:\?([!-~]{0,2048}))?"
)


@dataclass(frozen=True, slots=True)
class Handle:
    """A kept result of one tool of a server; `secret` is what nobody guesses."""

    server: str
    tool: str
    secret: str

    def uri(self, offset: int = 0, length: int = 0) -> str:
        """The URI of a piece, or with no length of the beginning."""
        named = f"{SCHEME}{self.server}/{quote(self.tool, safe='')}/{self.secret}"
        return f"{named}?offset={offset}&length={length}" if length else named


@dataclass(frozen=True, slots=True)
class Piece:
    """What is asked for of a kept result; `select` is an expression instead of an offset."""

    handle: Handle
    offset: int = 0
    length: int = USUAL_LENGTH
    select: str = ""


def piece_of(uri: str) -> Piece | None:
    """What a URI asks for; None when it is no handle."""
    found = _FORM.fullmatch(uri) if uri.startswith(SCHEME) else None
    if found is None:
        return None
    handle = Handle(found[1], unquote(found[2]), found[3])
    asked = parse_qs(found[4] or "")
    offset, length = _number(asked, "offset", 0), _number(asked, "length", USUAL_LENGTH)
    return Piece(handle, offset, min(length, MOST_LENGTH), asked.get("select", [""])[-1])


def governing(name: str) -> str:
    """What grants are asked about a resource: of a kept result the tool that made it."""
    piece = piece_of(name)
    return name if piece is None else piece.handle.tool


def _number(asked: dict[str, list[str]], name: str, usual: int) -> int:
    told = asked.get(name, [""])[-1]
    return int(told) if told.isascii() and told.isdigit() and len(told) < 16 else usual  # noqa: PLR2004
