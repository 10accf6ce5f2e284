"""The header of the PROXY protocol: exact length, strict form, and limits of size."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.http_server.proxy_protocol import (
    LARGEST,
    LONGEST_LINE,
    SIGNATURE,
    Client,
    ProxyHeaderError,
    client_of,
    missing,
)

PORTS = st.integers(0, 65535)
PAIRS = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
)
REFUSED: list[bytes] = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,  # a TLS handshake
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY UNKNOWNx\r\n",
    b"PROXY UNKNOWN " + b"x" * LONGEST_LINE + b"\r\n",
    SIGNATURE + struct.pack("!BBH", 0x11, 0x11, 12) + b"\x00" * 12,  # version 1 in binary form
    SIGNATURE + struct.pack("!BBH", 0x22, 0x11, 12) + b"\x00" * 12,  # unknown command
    SIGNATURE + struct.pack("!BBH", 0x21, 0x12, 12) + b"\x00" * 12,  # UDP
    SIGNATURE + struct.pack("!BBH", 0x21, 0x31, 216) + b"\x00" * 216,  # Unix sockets
    SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 11) + b"\x00" * 11,
    SIGNATURE + struct.pack("!BBH", 0x21, 0x21, 35) + b"\x00" * 35,
    SIGNATURE + struct.pack("!BBH", 0x21, 0x11, LARGEST + 1) + b"\x00" * (LARGEST + 1),
]


def line(client: str, server: str, ports: tuple[int, int]) -> bytes:
    kind = f"TCP{ip_address(client).version}"
    return f"PROXY {kind} {client} {server} {ports[0]} {ports[1]}\r\n".encode()


def binary(client: str, server: str, ports: tuple[int, int], more: bytes = b"") -> bytes:
    addresses = ip_address(client).packed + ip_address(server).packed
    kind = 0x11 if ip_address(client).version == 4 else 0x21
    data = addresses + struct.pack("!HH", *ports) + more
    return SIGNATURE + struct.pack("!BBH", 0x21, kind, len(data)) + data


def read(data: bytes) -> tuple[Client | None, bytes]:
    """Return the client and the bytes after the header, as a connection reads them."""
    header = b""
    while rest := missing(header):
        part, data = data[:rest], data[rest:]
        if not part:
            raise EOFError
        header += part
    return client_of(header), data


@given(PAIRS, st.tuples(PORTS, PORTS), st.binary(max_size=64))
def test_a_line_is_read_to_its_exact_end(
    pair: tuple[object, object], ports: tuple[int, int], after: bytes
) -> None:
    client, server = map(str, pair)
    assert read(line(client, server, ports) + after) == ((client, ports[0]), after)


@given(PAIRS, st.tuples(PORTS, PORTS), st.binary(max_size=512), st.binary(max_size=64))
def test_a_binary_header_is_read_to_its_exact_end(
    pair: tuple[object, object], ports: tuple[int, int], more: bytes, after: bytes
) -> None:
    client, server = map(str, pair)
    assert read(binary(client, server, ports, more) + after) == ((client, ports[0]), after)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda rest: b"PROXY " + rest),
        st.binary(max_size=300).map(lambda rest: SIGNATURE + rest),
    )
)
def test_any_bytes_are_a_header_or_refused_within_the_limits(data: bytes) -> None:
    try:
        client, after = read(data)
    except (ProxyHeaderError, EOFError):
        return
    assert len(data) - len(after) <= 16 + LARGEST
    if client is not None:
        ip_address(client[0])
        assert 0 <= client[1] <= 65535


@pytest.mark.parametrize("data", REFUSED, ids=[repr(each[:40]) for each in REFUSED])
def test_other_beginnings_are_refused(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        read(data)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        SIGNATURE + struct.pack("!BBH", 0x20, 0x00, 0),
        SIGNATURE + struct.pack("!BBH", 0x20, 0x11, 12) + b"\x01" * 12,
        SIGNATURE + struct.pack("!BBH", 0x21, 0x00, 0),
    ],
)
def test_a_balancers_own_connection_names_no_client(header: bytes) -> None:
    assert read(header + b"GET") == (None, b"GET")


def test_a_header_without_its_end_is_limited() -> None:
    header = b"PROXY TCP4 "
    while len(header) < LONGEST_LINE:
        header += b"1" * missing(header)
    assert len(header) == LONGEST_LINE
    with pytest.raises(ProxyHeaderError, match="too long"):
        missing(header)
