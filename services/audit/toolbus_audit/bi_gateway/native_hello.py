"""Handshake of ClickHouse's Go client, which Grafana's plugin uses (no I/O).

The client parses the response to its first query in the format of its own revision. This response
names revision 0, so the client parses all later responses as the engine writes them.
"""

import re

HELLO = re.compile(
    r"\s*SELECT displayName\(\), version\(\), revision\(\), timezone\(\)\s*;?\s*", re.IGNORECASE
)
_BLOCK_INFO = bytes([1, 0, 2, 255, 255, 255, 255, 0])
WITH_SERIALIZATION = 54_454  # since this revision, each column has a byte for its serialization


def is_hello(sql: str, protocol: int) -> bool:
    """Return whether this is the client's first query."""
    return protocol > 0 and HELLO.fullmatch(sql) is not None


def hello(version: str, protocol: int) -> bytes:
    """Return the response: one block in the format Native, encoded for revision `protocol`."""
    values = {"displayName()": "toolbus", "version()": version, "timezone()": "UTC"}
    columns = b"".join(
        _column(name, protocol, values.get(name))
        for name in ("displayName()", "version()", "revision()", "timezone()")
    )
    return _BLOCK_INFO + bytes([4, 1]) + columns


def _column(name: str, protocol: int, text: str | None) -> bytes:
    kind = "UInt32" if text is None else "String"
    serialization = b"\0" if protocol >= WITH_SERIALIZATION else b""
    value = bytes(4) if text is None else _string(text)
    return _string(name) + _string(kind) + serialization + value


def _string(text: str) -> bytes:
    data = text.encode()[:127]  # the length of a longer text would need a second byte
    return bytes([len(data)]) + data
