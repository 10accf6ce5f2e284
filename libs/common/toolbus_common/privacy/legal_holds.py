"""Legal holds, with which an operator exempts a customer from deletion and erasure."""

import logging

import msgspec

from toolbus_common.nats.kv_bucket import Bucket, Change
from toolbus_common.nats.topology import HOLD_PREFIX

log = logging.getLogger(__name__)


class Hold(msgspec.Struct, frozen=True):
    """A legal hold: the operator's reason, the start (seconds since the epoch), and the operator.

    `by` is the operator's pseudonym.
    """

    why: str
    at: float
    by: str = ""


class Holds:
    """The current legal holds, as watched in the configuration bucket."""

    def __init__(self) -> None:
        self._held: dict[str, Hold] = {}

    def apply_change(self, change: Change | None) -> None:
        """Apply one change of the bucket."""
        if change is None or not change.key.startswith(HOLD_PREFIX):
            return
        customer = change.key.removeprefix(HOLD_PREFIX)
        if change.value is None:
            self._held.pop(customer, None)
        else:
            self._held[customer] = _read(change.value)

    @property
    def customers(self) -> frozenset[str]:
        """The customers whose data must not be deleted."""
        return frozenset(self._held)


async def held(bucket: Bucket) -> dict[str, Hold]:
    """Return all current legal holds, by customer. Raises `BusDownError`."""
    return {
        each.key.removeprefix(HOLD_PREFIX): _read(each.value)
        for each in await bucket.present(f"{HOLD_PREFIX}>")
        if each.value is not None
    }


def _read(value: bytes) -> Hold:
    """Return a decoded legal hold. An unreadable entry still counts as a hold."""
    try:
        return msgspec.json.decode(value, type=Hold)
    except msgspec.MsgspecError:
        log.error("hold.unreadable")  # noqa: TRY400
        return Hold("(unreadable)", 0.0)
