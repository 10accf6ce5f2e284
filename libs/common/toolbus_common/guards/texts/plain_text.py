"""Escaped characters as plain ones, without a change of positions (no I/O)."""

import re2

# A placeholder of a redaction is nothing to redact.
_PLACEHOLDER = re2.compile(rb"\[redacted:[\w.-]{1,64}:[0-9a-f]{16}\]")
_REDACTED = b"[redacted:"
# The replacement is as long as the escape, and means the same to the rules of the detectors.
_BACKSLASHED = {
    rb"\n": b"\n\n",
    rb"\r": b"\n\n",
    rb"\t": b"  ",
    rb"\/": b"//",
}
_UNICODE = {
    rb"\u003d": b"    = ",
    rb"\u0026": b";" * 6,
    rb"\u0022": b'"' * 6,
    rb"\u0027": b"'" * 6,
    rb"\u0040": b".....@",
}
_PERCENT = {
    b"20": b"   ",
    b"22": b'"""',
    b"26": b";;;",
    b"27": b"'''",
    b"2B": b"+++",
    b"2F": b"///",
    b"3A": b" : ",
    b"3D": b"===",
    b"40": b"..@",
    b"0A": b"\n\n\n",
}
_ANY_PERCENT = re2.compile(b"(?i)%(?:" + b"|".join(_PERCENT) + b")")


def with_plain_escapes(data: bytes) -> bytes:
    """Return a text of the same length in which usual escapes of JSON and URLs are plain.

    Placeholders of redactions are replaced with brackets.
    """
    if _REDACTED in data:
        data = _without_placeholders(data)
    # Each replacement reads the whole text, so the rare ones are only tried where they occur.
    if b"\\" in data:
        for escape, plain in _BACKSLASHED.items():
            data = data.replace(escape, plain)
        if rb"\u00" in data:
            for escape, plain in _UNICODE.items():
                data = data.replace(escape, plain)
    if b"%" in data and _ANY_PERCENT.search(data) is not None:
        for digits, plain in _PERCENT.items():
            data = data.replace(b"%" + digits, plain).replace(b"%" + digits.lower(), plain)
    return data


def _without_placeholders(data: bytes) -> bytes:
    changed = bytearray(data)
    for found in _PLACEHOLDER.finditer(data):
        start, end = found.span()
        changed[start:end] = b"[" * (end - start)
    return bytes(changed)
