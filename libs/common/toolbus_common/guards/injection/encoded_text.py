"""Text in base64, hexadecimal or percent encoding, decoded with the positions of the original."""

import base64
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import unquote_to_bytes

import re2

from toolbus_common.guards.injection.views import View, folded

_ENCODED = re2.compile(
    r"(?P<base64>[A-Za-z0-9+/_-]{32,}={0,2})|(?P<hex>(?:[0-9a-fA-F]{2}){24,})"
    r"|(?P<percent>(?:%[0-9a-fA-F]{2}|[A-Za-z0-9._~+-]){8,})"
)
_GATE = re2.compile(r"[A-Za-z0-9+/_-]{32}|%[0-9a-fA-F]{2}[A-Za-z0-9._~+-]{0,40}%[0-9a-fA-F]{2}")
MOST_BLOBS = 256  # encoded parts of one text
SHORTEST = 16  # decoded characters
LARGEST_BLOB = 64 * 1024  # decoded characters; the rest of a longer part is ignored


def decoded_texts(text: str) -> Iterator[View]:
    """Return the texts within encoded parts of a text.

    A part that decodes to something else than text is left out.
    """
    data = text.encode("ascii", "replace")  # one byte for a character
    if _GATE.search(data) is None:
        return
    for number, match in enumerate(_ENCODED.finditer(data)):
        if number == MOST_BLOBS:
            return
        start, end = match.span()
        blob = data[start:end][: LARGEST_BLOB * 4 // 3]
        for plain in _readings(match.lastgroup, blob):
            if (readable := _readable(plain)) is not None:
                length, whole = len(readable), end - start
                yield View(
                    folded(readable),
                    [start + place * whole // length for place in range(length)],
                    max(1, whole // length),
                )
                break


def _readings(kind: str | None, blob: bytes) -> Iterator[bytes]:
    if kind == "percent":
        if b"%" in blob:
            yield unquote_to_bytes(blob.replace(b"+", b" "))
        return
    if len(blob) % 2 == 0:
        with suppress(ValueError):
            yield bytes.fromhex(blob.decode("ascii"))
    if kind == "base64":
        bare = blob.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        bare = bare[: len(bare) - (len(bare) % 4 == 1)]
        with suppress(ValueError):
            yield base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)


def _readable(plain: bytes) -> str | None:
    try:
        text = plain.decode("utf-8")
    except UnicodeDecodeError:
        return None
    spaces = text.count(" ")
    if len(text) < SHORTEST or (spaces == 0 and text.isascii()):
        return None
    return text if sum(map(str.isprintable, text)) >= 0.95 * len(text) else None
