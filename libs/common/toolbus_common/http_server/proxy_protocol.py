"""The header of the PROXY protocol, versions 1 and 2: the client of a load balancer's connection.

https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt
"""

import re
import struct
from ipaddress import IPv4Address, IPv6Address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"  # of version 2
_TEXT = b"PROXY "  # of version 1
_HEAD = 16  # bytes of version 2 before the addresses
SHORTEST_LINE, LONGEST_LINE = len(b"PROXY UNKNOWN\r\n"), 107
LARGEST = 4096  # bytes of addresses and additional values in version 2

_LINE = re.compile(
    rb"PROXY TCP([46]) ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})\r\n"
)
_UNKNOWN_LINE = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_FORMS = {_TCP4: ("!4s4sHH", IPv4Address), _TCP6: ("!16s16sHH", IPv6Address)}
_LARGEST_PORT = 0xFFFF

Client = tuple[str, int]


class ProxyHeaderError(Exception):
    """A connection does not begin with a valid header."""


def missing(data: bytes) -> int:
    """Return how many more bytes certainly belong to the header; 0 if it is complete.

    `data` is the beginning of a connection. Raises `ProxyHeaderError` if it begins no header, or a
    header that is too large.
    """
    if not data:
        return SHORTEST_LINE
    if _TEXT.startswith(data[: len(_TEXT)]):
        return _missing_of_line(data)
    if not SIGNATURE.startswith(data[: len(SIGNATURE)]):
        raise ProxyHeaderError("no PROXY header")
    if len(data) < _HEAD:
        return _HEAD - len(data)
    size = int.from_bytes(data[14:_HEAD], "big")
    if size > LARGEST:
        raise ProxyHeaderError("the PROXY header is too large")
    return _HEAD + size - len(data)


def _missing_of_line(data: bytes) -> int:
    if data.endswith(b"\r\n"):
        return 0
    if len(data) >= LONGEST_LINE:
        raise ProxyHeaderError("the PROXY header is too long")
    end = 1 if data.endswith(b"\r") else 2
    return max(SHORTEST_LINE - len(data), min(end, LONGEST_LINE - len(data)))


def client_of(header: bytes) -> Client | None:
    """Return the client's address and port; None if the balancer itself opened the connection.

    Raises `ProxyHeaderError` for a header that is not valid or names no TCP connection.
    """
    return _of_line(header) if header.startswith(_TEXT) else _of_binary(header)


def _of_line(line: bytes) -> Client | None:
    if _UNKNOWN_LINE.fullmatch(line):
        return None
    match = _LINE.fullmatch(line)
    if match is None:
        raise ProxyHeaderError("the PROXY header is not valid")
    kind = IPv4Address if match[1] == b"4" else IPv6Address
    try:
        client, _ = kind(match[2].decode()), kind(match[3].decode())
    except ValueError as error:
        raise ProxyHeaderError("the PROXY header has an invalid address") from error
    if max(int(match[4]), int(match[5])) > _LARGEST_PORT:
        raise ProxyHeaderError("the PROXY header has an invalid port")
    return str(client), int(match[4])


def _of_binary(header: bytes) -> Client | None:
    command, kind = header[12], header[13]
    if command == _LOCAL or (command == _PROXY and kind == _UNSPECIFIED):
        return None
    form, address = _FORMS.get(kind, ("", IPv4Address))
    if command != _PROXY or not form:
        raise ProxyHeaderError("the PROXY header names no TCP connection")
    if len(header) - _HEAD < struct.calcsize(form):
        raise ProxyHeaderError("the PROXY header has no complete address")
    client, _, port, _ = struct.unpack_from(form, header, _HEAD)
    return str(address(client)), port
