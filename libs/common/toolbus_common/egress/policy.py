"""The check: a target and the addresses it stands for, allowed or refused. Pure.

Public addresses may be called. Others may where the operator lists them, or where he himself
named the target in the file he applies: an address he wrote out, localhost, or a name that stands
for a private address. A name of his that suddenly means loopback or a metadata service is what
rebinding looks like, and is refused like anybody else's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from toolbus_common.egress.addresses import LOOPBACK, PRIVATE, PUBLIC, SHARED, Address, kind_of
from toolbus_common.egress.allow_list import NOTHING, Allowed
from toolbus_common.egress.url_target import EgressError, Target

SETTING = "TOOLBUS_EGRESS_ALLOW"


class RefusedError(EgressError):
    """An address of a kind that may not be called. `address` and `kind` are for the log."""

    def __init__(self, target: Target, address: Address, kind: str) -> None:
        stands = "is" if target.address is not None else "stands for"
        super().__init__(
            f"its host {stands} {kind}, which nothing calls unless the operator lists it in "
            f"{SETTING} or names it in the file he applies"
        )
        self.address = str(address)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Egress:
    """What may be called, as the operator's settings have it."""

    allowed: Allowed = NOTHING

    def judged(self, target: Target, found: Iterable[str], *, named: bool = False) -> list[str]:
        """The addresses to connect to: all that were found, or none. Raises `EgressError`."""
        addresses = list(dict.fromkeys(found))
        if not addresses:
            raise EgressError("its host stands for no address")
        for each in addresses:
            self._check(target, ip_address(each.partition("%")[0]), named=named)
        return addresses

    def check_written(self, target: Target, *, named: bool = False) -> None:
        """Check what can be seen without asking a name server. Raises `EgressError`."""
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
    """Whether an operator who named this target means addresses of this kind."""
    if target.address is not None:
        return True
    return kind in (PRIVATE, SHARED) or (kind == LOOPBACK and target.is_local)
