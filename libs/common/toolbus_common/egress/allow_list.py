"""The addresses that an operator permits besides public ones: ranges, addresses, names (no I/O)."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from ipaddress import ip_network

from toolbus_common.egress.addresses import Address, Network, is_metadata, within
from toolbus_common.egress.url_target import MAX_PORT, EgressError, Target, host_of

LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class _Item:
    """One entry: a network or a name pattern, for one port or for all ports (0)."""

    network: Network | None
    name: str
    port: int

    def covers(self, target: Target, address: Address) -> bool:
        if self.port and self.port != target.port:
            return False
        if self.network is None:
            # A metadata service is permitted only by its exact address, never by a range or a name.
            return fnmatchcase(target.host, self.name) and not is_metadata(address)
        single = self.network.num_addresses == 1
        return all(
            each in self.network and (single or not is_metadata(each)) for each in within(address)
        )

    def names(self, target: Target) -> bool:
        """Return whether the entry matches a target as written, without name resolution."""
        if target.address is not None:
            return self.covers(target, target.address)
        fits = self.port in (0, target.port)
        return self.network is None and fits and fnmatchcase(target.host, self.name)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Permitted ranges (10.1.0.0/16), addresses and names (*.internal), with an optional :port."""

    items: tuple[_Item, ...] = ()

    @classmethod
    def of(cls, text: str) -> "Allowed":
        """Return the entries of a setting, separated by blanks or commas. Raises `ValueError`."""
        return _read(text)

    def covers(self, target: Target, address: Address) -> bool:
        """Return whether a connection to this address is permitted for this target."""
        return any(item.covers(target, address) for item in self.items)

    def names(self, target: Target) -> bool:
        """Return whether a target is permitted as written, before name resolution."""
        return any(item.names(target) for item in self.items)

    def __bool__(self) -> bool:
        return bool(self.items)


NOTHING = Allowed()


@cache
def _read(text: str) -> Allowed:
    return Allowed(tuple(map(_item, text.replace(",", " ").split())))


def _item(entry: str) -> _Item:
    try:
        return _Item(ip_network(entry), "", 0)
    except ValueError:
        pass
    host, colon, number = entry.rpartition(":")
    if not colon or not number.isdecimal():
        host, number = entry, "0"
    if not 0 <= int(number) <= MAX_PORT:
        raise _invalid(entry)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        return _Item(ip_network(host), "", int(number))
    except ValueError:
        return _Item(None, _pattern(host, entry), int(number))


def _pattern(host: str, entry: str) -> str:
    try:
        name, address = host_of(host.removeprefix("*."))
    except EgressError:
        raise _invalid(entry) from None
    if address is not None:
        raise _invalid(entry)
    return f"*.{name}" if host.startswith("*.") else name


def _invalid(entry: str) -> ValueError:
    return ValueError(
        f"{entry[:LONGEST_SHOWN]!r} is not an address range, an address or a name; write "
        "10.1.0.0/16, "
        "127.0.0.1, docs.internal or *.internal, each with an optional :port"
    )
