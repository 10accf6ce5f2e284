"""Classification of IP addresses, including addresses embedded in other addresses (no I/O)."""

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PUBLIC = ""
LOOPBACK, PRIVATE, SHARED = "a loopback address", "a private address", "a carrier's shared address"
LINK_LOCAL, METADATA = "a link-local address", "a cloud's metadata service"
MULTICAST, UNSPECIFIED = "a multicast address", "an unspecified address"
RESERVED = "a reserved address"

# Services at these addresses return credentials of the machine.
_METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.169.253",
            "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
            "100.100.100.200", "192.0.0.192", "168.63.129.16",
        ),
    )
)  # fmt: skip

# This table is used because the classification in `ipaddress` differs between Python versions.
_SPECIAL: dict[int, tuple[tuple[Network, str], ...]] = {
    4: tuple(
        (ip_network(network), kind)
        for network, kind in (
            ("0.0.0.0/8", UNSPECIFIED), ("127.0.0.0/8", LOOPBACK), ("10.0.0.0/8", PRIVATE),
            ("172.16.0.0/12", PRIVATE), ("192.168.0.0/16", PRIVATE), ("100.64.0.0/10", SHARED),
            ("169.254.0.0/16", LINK_LOCAL), ("192.0.0.0/24", RESERVED), ("192.0.2.0/24", RESERVED),
            ("192.88.99.0/24", RESERVED), ("198.18.0.0/15", RESERVED),
            ("198.51.100.0/24", RESERVED), ("203.0.113.0/24", RESERVED),
            ("224.0.0.0/4", MULTICAST), ("240.0.0.0/4", RESERVED), ("0.0.0.0/0", PUBLIC),
        )
    ),
    6: tuple(
        (ip_network(network), kind)
        for network, kind in (
            ("::/128", UNSPECIFIED), ("::1/128", LOOPBACK), ("fc00::/7", PRIVATE),
            ("fe80::/10", LINK_LOCAL), ("fec0::/10", PRIVATE), ("ff00::/8", MULTICAST),
            ("2001::/23", RESERVED), ("2001:db8::/32", RESERVED), ("3fff::/20", RESERVED),
            ("2000::/3", PUBLIC), ("::/0", RESERVED),
        )
    ),
}  # fmt: skip

_NAT64, _COMPATIBLE = IPv6Network("64:ff9b::/96"), IPv6Network("::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)  # the upper half of an interface identifier


def kind_of(address: Address) -> str:
    """Return the kind of an address; empty for a public address."""
    return next((kind for each in within(address) if (kind := _single_kind(each))), PUBLIC)


def within(address: Address) -> tuple[Address, ...]:
    """Return the addresses that packets to this address can reach.

    These are the address itself and embedded IPv4 addresses, or only the embedded address if
    packets never go to the address itself.
    """
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None or address in _NAT64:
        return (_last(address),)
    return (address, *_tunnelled(address))


def _tunnelled(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses that a tunnel address contains."""
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    wrapped = address in _COMPATIBLE and int(address) > 1
    if wrapped or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return (_last(address),)
    return ()


def _single_kind(address: Address) -> str:
    if address in _METADATA:
        return METADATA
    return next(kind for network, kind in _SPECIAL[address.version] if address in network)


def _last(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)


def is_metadata(address: Address) -> bool:
    """Return whether this address reaches a cloud's metadata service."""
    return any(each in _METADATA for each in within(address))
