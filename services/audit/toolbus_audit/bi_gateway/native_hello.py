"""The greeting of ClickHouse's Go client, which Grafana's plugin is made with. Pure.

Its first question fixes how it reads every later answer: told revision 0, it reads blocks as the
engine writes them. That one answer alone must be written as the client's own revision has it.
"""

import re

HELLO = re.compile(
    r"\s*SELECT displayName\(\), version\(\), revision\(\), timezone\(\)\s*;?\s*", re.IGNORECASE
)
_BLOCK_INFO = bytes([1, 0, 2, 255, 255, 255, 255, 0])
WITH_SERIALIZATION = 54_454  # from this revision on, a byte for each column says how it is written


def is_hello(sql: str, protocol: int) -> bool:
    """Whether this is that question."""
    return protocol > 0 and HELLO.fullmatch(sql) is not None


def hello(version: str, protocol: int) -> bytes:
    """The answer, as one block in the format Native of that revision."""
    told = {"displayName()": "toolbus", "version()": version, "timezone()": "UTC"}
    columns = b"".join(
        _column(name, protocol, told.get(name))
        for name in ("displayName()", "version()", "revision()", "timezone()")
    )
    return _BLOCK_INFO + bytes([4, 1]) + columns


def _column(name: str, protocol: int, text: str | None) -> bytes:
    kind = "UInt32" if text is None else "String"
    plain = b"\0" if protocol >= WITH_SERIALIZATION else b""
    value = bytes(4) if text is None else _string(text)
    return _string(name) + _string(kind) + plain + value


def _string(text: str) -> bytes:
    data = text.encode()[:127]  # a longer one would need another byte of length
    return bytes([len(data)]) + data
