"""The egress policy: decided on the address itself, in every spelling."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.samples.address_spellings import spellings
from toolbus_common.config import Configuration, Server, Webhook
from toolbus_common.config_store.operator_targets import digest_of, digests_of
from toolbus_common.egress import Allowed, Egress, EgressError, Target, target_of
from toolbus_common.egress.addresses import (
    LINK_LOCAL,
    LOOPBACK,
    METADATA,
    MULTICAST,
    PRIVATE,
    RESERVED,
    SHARED,
    UNSPECIFIED,
    kind_of,
)
from toolbus_common.egress.policy import STRICT
from toolbus_common.settings import Settings
from toolbus_executor.transport.proxies import Proxy, proxy_for

PUBLIC = "93.184.216.34"
NAME = target_of("http://docs.example:8080/mcp")
V4 = st.integers(0, 2**32 - 1).map(IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(IPv6Address)
INNER = st.sampled_from(
    [ip_address(each) for each in ("127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1")]
)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", LOOPBACK), ("127.255.255.255", LOOPBACK), ("::1", LOOPBACK),
        ("10.0.0.1", PRIVATE), ("172.31.0.1", PRIVATE), ("192.168.1.1", PRIVATE),
        ("fd12::1", PRIVATE), ("fec0::1", PRIVATE), ("100.64.0.1", SHARED),
        ("100.127.255.255", SHARED), ("169.254.1.1", LINK_LOCAL), ("fe80::1", LINK_LOCAL),
        ("169.254.169.254", METADATA), ("fd00:ec2::254", METADATA), ("100.100.100.200", METADATA),
        ("::ffff:169.254.169.254", METADATA), ("224.0.0.1", MULTICAST), ("ff02::1", MULTICAST),
        ("0.0.0.0", UNSPECIFIED), ("0.1.2.3", UNSPECIFIED), ("::", UNSPECIFIED),
        ("240.0.0.1", RESERVED), ("255.255.255.255", RESERVED), ("192.0.2.1", RESERVED),
        ("2001:db8::1", RESERVED), ("64:ff9b:1::1", RESERVED), ("100::1", RESERVED),
        ("::ffff:127.0.0.1", LOOPBACK), ("64:ff9b::7f00:1", LOOPBACK),
        ("2002:7f00:1::", LOOPBACK), ("2606:4700::5efe:10.0.0.1", PRIVATE),
        (PUBLIC, ""), ("172.32.0.1", ""), ("100.128.0.1", ""), ("11.0.0.1", ""),
        ("2606:4700::1111", ""), ("::ffff:8.8.8.8", ""), ("64:ff9b::808:808", ""),
    ],
)  # fmt: skip
def test_an_address_is_classified(address: str, kind: str) -> None:
    assert kind_of(ip_address(address)) == kind


@given(V4)
def test_an_address_python_does_not_call_global_is_rejected(address: IPv4Address) -> None:
    if not address.is_global:
        assert kind_of(address)


@given(V6)
def test_only_global_unicast_is_public(address: IPv6Address) -> None:
    wrapped = [ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96")]
    if not any(address in each for each in (ip_network("2000::/3"), *wrapped)):
        assert kind_of(address)


@given(INNER, st.integers(0, 2**64 - 1))
def test_an_embedded_ipv4_address_is_classified_by_itself(inner: IPv4Address, rest: int) -> None:
    number = int(inner)
    for wrapped in (
        (0xFFFF << 32) + number,
        number,
        (0x64FF9B << 96) + number,
        (0x2002 << 112) + (number << 80) + rest,
        (0x20010000 << 96) + (number << 64) + rest,
        (0x20010000 << 96) + (rest << 32 & (2**96 - 2**32)) + (number ^ 0xFFFFFFFF),
        (0x2606 << 112) + (0x5EFE << 32) + number,
    ):
        assert kind_of(IPv6Address(wrapped)), IPv6Address(wrapped)


@given(V4, st.integers(1, 65535))
def test_an_ipv4_address_is_parsed(address: IPv4Address, port: int) -> None:
    assert target_of(f"https://{address}:{port}/x?y") == ("https", str(address), port, address)


@given(V6)
def test_an_ipv6_address_is_parsed(address: IPv6Address) -> None:
    for written in (str(address), address.exploded):
        assert target_of(f"http://[{written}]/").address == address


def test_no_spelling_of_a_private_address_counts_as_public() -> None:
    read = []
    for url in spellings(80):
        try:
            read.append(target_of(url))
        except EgressError:
            continue
    assert all(target.address is None or kind_of(target.address) for target in read)
    names = {target.host for target in read if target.address is None and not target.is_local}
    assert all(name.endswith(".example") for name in names), names


@given(st.text(max_size=30))
def test_any_text_is_a_target_or_rejected(text: str) -> None:
    try:
        target = target_of(f"http://{text}/")
    except EgressError:
        return
    assert target.host.isascii()
    assert not target.host.rpartition(".")[2].isdigit() or target.address is not None


@pytest.mark.parametrize("found", [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["fe80::1%eth0"], []])
def test_one_forbidden_address_rejects_the_whole_name(found: list[str]) -> None:
    with pytest.raises(EgressError):
        STRICT.check_addresses(NAME, found)


def test_a_rejection_names_the_setting_and_not_the_resolved_address() -> None:
    with pytest.raises(EgressError) as caught:
        STRICT.check_addresses(NAME, ["10.9.8.7"])
    assert "TOOLBUS_EGRESS_ALLOW" in str(caught.value)
    assert "10.9.8.7" not in str(caught.value)


@pytest.mark.parametrize(
    ("listed", "address", "passes"),
    [
        ("10.0.0.0/8", "10.9.9.9", True),
        ("10.0.0.0/8", "11.0.0.1", True),
        ("10.0.0.0/8", "172.16.0.1", False),
        ("10.0.0.0/8", "::ffff:10.1.1.1", True),
        ("10.0.0.1:8080", "10.0.0.1", True),
        ("10.0.0.1:8081", "10.0.0.1", False),
        ("[fd00::1]:8080", "fd00::1", True),
        ("docs.example", "127.0.0.1", True),
        ("docs.example:80", "127.0.0.1", False),
        ("*.example", "10.0.0.1", True),
        ("*.docs.example", "10.0.0.1", False),
        ("docs.example 0.0.0.0/0", "169.254.169.254", False),
        ("169.254.0.0/16", "169.254.169.254", False),
        ("169.254.169.254", "169.254.169.254", True),
        ("127.0.0.1,::1", "::1", True),
    ],
)
def test_a_listed_address_is_allowed(listed: str, address: str, *, passes: bool) -> None:
    egress = Egress(Allowed.of(listed))
    if passes:
        assert egress.check_addresses(NAME, [address]) == [address]
        return
    with pytest.raises(EgressError):
        egress.check_addresses(NAME, [address])


@pytest.mark.parametrize("listed", ["10.0.0.0/99", "127.1", "0x7f.1", "http://a", "a b c_?", "*"])
def test_a_malformed_list_is_rejected_at_start(listed: str) -> None:
    with pytest.raises(ValidationError, match="is not an address range, an address or a name"):
        Settings(egress_allow=listed)


@pytest.mark.parametrize(
    ("url", "address", "passes"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", True),
        ("http://localhost:8080", "127.0.0.1", True),
        ("http://169.254.169.254", "169.254.169.254", True),
        ("http://docs", "10.0.0.7", True),
        ("http://docs", "fd12::7", True),
        ("http://docs.example", "127.0.0.1", False),
        ("http://docs.example", "169.254.169.254", False),
        ("http://docs.example", "0.0.0.0", False),
        ("http://localhost", "10.0.0.1", True),
        ("http://localhost", "169.254.169.254", False),
    ],
)
def test_a_named_target_may_resolve_to_private_addresses(
    url: str, address: str, *, passes: bool
) -> None:
    target = target_of(url)
    with pytest.raises(EgressError):
        STRICT.check_addresses(target, [address])
    if passes:
        assert STRICT.check_addresses(target, [address], named=True) == [address]
        return
    with pytest.raises(EgressError):
        STRICT.check_addresses(target, [address], named=True)


# -- permissions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"headers": {"X": "y"}}, True),
        ({"timeout": 5.0}, True),
        ({"definitions": "each"}, True),
        ({"protocol": "legacy"}, True),
        ({"url": "http://127.0.0.1/other"}, False),
        ({"proxy": "http://proxy.example:3128"}, False),
        ({"ca": "other.pem"}, False),
    ],
)
def test_the_operators_permission_covers_the_servers_url(
    change: dict[str, Any], *, same: bool
) -> None:
    server = Server(url="http://127.0.0.1/mcp")
    assert (digest_of(Server(**{"url": server.url, **change})) == digest_of(server)) is same


def test_a_permission_for_a_webhook_does_not_cover_a_server() -> None:
    url = "http://127.0.0.1/"
    hook = Webhook(url=url, secret="${env:HOOK}")
    assert digest_of(hook) != digest_of(Server(url=url))
    declared = Configuration(servers={"a": Server(url=url)}, webhooks={"b": hook})
    assert set(digests_of(declared)) == {digest_of(hook), digest_of(Server(url=url))}


# -- proxies -------------------------------------------------------------------------------------

ENVIRONMENT = {
    "HTTPS_PROXY": "http://user:word%20@proxy.example:3128",
    "http_proxy": "plain.example:8080",
    "NO_PROXY": ".internal, docs.example:8443 10.0.0.0/8,2001:db8::/32",
}


def by(url: str, declared: str = "") -> Proxy | None:
    return proxy_for(target_of(url), declared, ENVIRONMENT)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://docs.example/", "proxy.example"),
        ("http://docs.example/", "plain.example"),
        ("https://docs.example:8443/", ""),
        ("https://a.internal/", ""),
        ("https://internal/", ""),
        ("https://notinternal/", "proxy.example"),
        ("https://10.2.3.4/", ""),
        ("https://[2001:db8::1]/", ""),
        ("https://11.2.3.4/", "proxy.example"),
        ("http://localhost/", ""),
        ("http://127.0.0.1/", ""),
    ],
)
def test_the_environment_configures_a_proxy_and_its_exceptions(url: str, host: str) -> None:
    found = by(url)
    assert (found.target.host if found else "") == host


def test_a_declared_proxy_overrides_and_none_disables_it() -> None:
    assert by("https://docs.example/", "none") is None
    found = by("https://a.internal/", "http://own.example")
    assert found is not None
    assert found.target == Target("http", "own.example", 80, None)
    assert not found.by_environment


def test_a_proxys_password_is_sent_to_the_proxy_only() -> None:
    found = by("https://docs.example/")
    assert found is not None
    assert found.authorization == b"Proxy-Authorization: Basic dXNlcjp3b3JkIA==\r\n"
    assert "dXNl" not in repr(found)


@pytest.mark.parametrize("proxy", ["https://p.example", "http://u:p@p.example", "p", "${env:A}b"])
def test_a_declared_proxy_holds_no_password(proxy: str) -> None:
    with pytest.raises(ValidationError, match=r"\$\{env:NAME\}"):
        Server(url="https://a.example", proxy=proxy)
