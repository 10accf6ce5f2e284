"""Egress policy: permit or reject a target and its resolved addresses (no I/O).

Public addresses are permitted. Other addresses are permitted if the operator lists them, or names
the target in the configuration file: a literal address, localhost, or a name that resolves to a
private address. A configured name that resolves to a loopback address or to a metadata service is
rejected, because this can be DNS rebinding.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from toolbus_common.egress.addresses import LOOPBACK, PRIVATE, PUBLIC, SHARED, Address, kind_of
from toolbus_common.egress.allow_list import NOTHING, Allowed
from toolbus_common.egress.url_target import EgressError, Target

SETTING = "TOOLBUS_EGRESS_ALLOW"


class RefusedError(EgressError):
    """The kind of the address is not permitted. `address` and `kind` are for the log."""

    def __init__(self, target: Target, address: Address, kind: str) -> None:
        verb = "is" if target.address is not None else "resolves to"
        super().__init__(
            f"its host {verb} {kind}, which is not allowed unless the operator adds it to "
            f"{SETTING} or names it in the configuration file"
        )
        self.address = str(address)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Egress:
    """The egress policy for the operator's setting."""

    allowed: Allowed = NOTHING

    def check_addresses(
        self, target: Target, found: Iterable[str], *, named: bool = False
    ) -> list[str]:
        """Return the resolved addresses without duplicates, if all are permitted.

        Raises:
            EgressError: there is no address, or one of them is not permitted.

        """
        addresses = list(dict.fromkeys(found))
        if not addresses:
            raise EgressError("its host name resolves to no address; check it")
        for each in addresses:
            self._check(target, ip_address(each.partition("%")[0]), named=named)
        return addresses

    def check_written(self, target: Target, *, named: bool = False) -> None:
        """Check a target before name resolution. Raises `EgressError`."""
        if target.address is not None:
            self._check(target, target.address, named=named)
        elif target.is_local:
            self._check(target, ip_address("127.0.0.1"), named=named)

    def _check(self, target: Target, address: Address, *, named: bool) -> None:
        kind = kind_of(address)
        if kind == PUBLIC or (named and _meant(target, kind)):
            return
        if not self.allowed.covers(target, address):
            raise RefusedError(target, address, kind)


STRICT = Egress()  # public addresses only


def _meant(target: Target, kind: str) -> bool:
    """Return whether a target that the operator configured can have addresses of this kind."""
    if target.address is not None:
        return True
    return kind in (PRIVATE, SHARED) or (kind == LOOPBACK and target.is_local)
