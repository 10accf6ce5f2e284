"""Private keys in PEM form, also without their end and in one line (no I/O)."""

from collections.abc import Iterator

import re2

_BEGIN = re2.compile(rb"(?i)-----BEGIN[ A-Z0-9_-]{0,100}PRIVATE KEY(?: BLOCK)?-----")
_END = re2.compile(rb"(?i)KEY(?: BLOCK)?-----")
_NOT_BODY = re2.compile(rb"[^A-Za-z0-9+/=\s\\\"',:.#>\-()]")
_DASHES = b"-----"
_SHORTEST = 64  # characters after the first line


def private_keys(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each private key."""
    if _DASHES not in data:  # as in most texts, where this is faster than the expression
        return
    position = 0
    while (begin := _BEGIN.search(data, position)) is not None:
        start, body = begin.span()
        following = _BEGIN.search(data, body)
        limit = following.start() if following else len(data)
        end = _END.search(data, min(body + _SHORTEST, limit), limit)
        stop = _NOT_BODY.search(data, body, limit)
        body_end = stop.start() if stop else limit
        position = end.end() if end is not None else body_end
        if end is not None or body_end - body >= _SHORTEST:
            yield start, position
        position = max(position, body)
