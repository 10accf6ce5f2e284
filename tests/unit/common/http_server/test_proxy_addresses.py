"""Whose request it is behind declared proxies, and what an address counts as."""

import pytest

from toolbus_common.http_server.proxy_addresses import Proxies, bounded_as

PEER = "10.0.0.1"
PROXIES = Proxies.of("10.0.0.0/8, fd00::/8")


def client_of(*values: str, proxies: Proxies = PROXIES) -> str:
    return proxies.client_of(PEER, [(proxies.header, value.encode()) for value in values])


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (("203.0.113.7",), "203.0.113.7"),
        (("203.0.113.7, 10.0.0.2",), "203.0.113.7"),
        (("203.0.113.7", "10.0.0.2"), "203.0.113.7"),
        (("198.51.100.9, 203.0.113.7",), "203.0.113.7"),
        (("198.51.100.9, junk, 203.0.113.7, 10.9.9.9",), "203.0.113.7"),
        (("203.0.113.7:4711",), "203.0.113.7"),
        (("[2001:db8::1]:4711",), "2001:db8::1"),
        (("::ffff:203.0.113.7",), "203.0.113.7"),
        (("203.0.113.7, junk",), PEER),
        (("10.0.0.2",), PEER),
        (("",), PEER),
        ((), PEER),
    ],
)
def test_the_client_is_the_last_hop_before_the_declared_proxies(
    values: tuple[str, ...], client: str
) -> None:
    assert client_of(*values) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=203.0.113.7;proto=https", "203.0.113.7"),
        ('for="[2001:db8::1]:4711"', "2001:db8::1"),
        ("for=198.51.100.9, proto=https;For=203.0.113.7;by=10.0.0.2", "203.0.113.7"),
        ("for=203.0.113.7, for=unknown", PEER),
        ("for=_hidden", PEER),
        ("proto=https", PEER),
    ],
)
def test_the_forwarded_header_is_read_where_it_is_declared(value: str, client: str) -> None:
    assert client_of(value, proxies=Proxies.of("10.0.0.0/8", "forwarded")) == client


def test_only_the_declared_header_is_used() -> None:
    headers = [(b"forwarded", b"for=198.51.100.9"), (b"x-forwarded-for", b"203.0.113.7")]
    assert PROXIES.client_of(PEER, headers) == "203.0.113.7"


def test_headers_of_an_undeclared_proxy_are_ignored() -> None:
    assert PROXIES.cover("10.255.0.1")
    assert PROXIES.cover("::ffff:10.0.0.1")
    assert not PROXIES.cover("203.0.113.7")
    assert not Proxies().cover("127.0.0.1")


def test_an_invalid_list_is_rejected() -> None:
    with pytest.raises(ValueError, match="300"):
        Proxies.of("10.0.0.300")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
    ],
)
def test_an_ipv6_client_is_counted_by_its_network(address: str, counted: str) -> None:
    assert bounded_as(address) == counted
