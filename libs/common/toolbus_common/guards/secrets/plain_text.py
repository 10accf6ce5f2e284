"""Escaped characters as plain ones, without a change of positions (no I/O)."""

# The replacement is as long as the escape. It has the same meaning to the rules.
_BACKSLASHED = (
    (rb"\\\"", b'"' * 4), (rb"\\\\\"", b'"' * 5), (rb"\"", b'""'), (rb"\'", b"''"), (rb"\n", b"\n\n"), (rb"\r", b"\n\n"),
    (rb"\t", b"  "), (rb"\/", b"//"), (rb"\u003d", b"    = "), (rb"\u0026", b";" * 6), (rb"\u0022", b'"' * 6),
    (rb"\u0027", b"'" * 6),
)  # fmt: skip
_PERCENT = (
    (b"%22", b'"""'), (b"%27", b"'''"), (b"%20", b"   "), (b"%26", b";;;"), (b"%3D", b"==="), (b"%3d", b"==="),
    (b"%3A", b" : "), (b"%3a", b" : "), (b"%2F", b"///"), (b"%2f", b"///"), (b"%2B", b"+++"), (b"%2b", b"+++"),
    (b"%0A", b"\n\n\n"), (b"%0a", b"\n\n\n"),
)  # fmt: skip


def with_plain_escapes(data: bytes) -> bytes:
    """Return a text of the same length in which usual escapes of JSON and URLs are plain."""
    for marker, escapes in ((b"\\", _BACKSLASHED), (b"%", _PERCENT)):
        if marker in data:
            for escape, plain in escapes:
                data = data.replace(escape, plain)
    return data
