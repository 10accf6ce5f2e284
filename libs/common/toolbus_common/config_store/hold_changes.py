"""Placing and removing legal holds, with the events that record it."""

import secrets
from time import time

import msgspec

from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import HoldLifted, HoldPlaced
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.errors import UnknownEntryError
from toolbus_common.nats.topology import CONFIG, HOLD_PREFIX
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.privacy.legal_holds import Hold, held

OPERATOR_KIND = "operator:"  # the kind of person whose key encrypts the name of the operator


async def place(
    repository: ConfigRepository, people: PersonKeys, customer: str, reason: str
) -> Hold:
    """Place a legal hold. Raises `UnknownEntryError` if the customer is not configured."""
    customers = (await repository.declared()).configuration.customers
    if customer not in (*customers, DEFAULT_CUSTOMER):
        raise UnknownEntryError(
            f"No customer '{customer}' is configured; 'toolbus get customers' lists them."
        )
    operator = f"{OPERATOR_KIND}{repository.by}"
    await people.learn([operator])
    entry = Hold(reason, time(), people.pseudonym(operator))
    # Store the hold before its event, so that the hold applies even if recording fails.
    bucket = await repository.bus.bucket(CONFIG)
    await bucket.put(f"{HOLD_PREFIX}{customer}", msgspec.json.encode(entry))
    _record(repository, HoldPlaced, customer, reason)
    return entry


async def lift(repository: ConfigRepository, customer: str, reason: str) -> None:
    """Remove a legal hold. Raises `UnknownEntryError` if there is none."""
    bucket = await repository.bus.bucket(CONFIG)
    if customer not in await held(bucket):
        raise UnknownEntryError(f"'{customer}' is not under a legal hold.")
    _record(repository, HoldLifted, customer, reason)
    await repository.delivered()
    await bucket.delete(f"{HOLD_PREFIX}{customer}")


def _record(
    repository: ConfigRepository, event: type[HoldPlaced | HoldLifted], customer: str, reason: str
) -> None:
    number = f"{secrets.token_hex(10)}.{event.NAME}"
    repository.record(
        event(id=number, at=time(), customer=customer, by=repository.by, reason=reason)
    )
