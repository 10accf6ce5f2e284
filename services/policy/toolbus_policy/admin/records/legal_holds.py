"""Administrators' operations on legal holds."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Any

import msgspec

from toolbus_common.access.administrators import Administrator
from toolbus_common.admin_api.installation_models import HoldReason
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import AdminReply, AdminRequest, HoldLifted, HoldPlaced
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.errors import UnknownEntryError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import CONFIG, HOLD_PREFIX
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.privacy.legal_holds import Hold, held
from toolbus_policy.admin.records.event_queries import json_reply
from toolbus_policy.admin.records.log_proofs import LogProofs
from toolbus_policy.admin.request_parser import parse_body

_OPERATOR = "operator:"  # the kind of person that its key encrypts


@dataclass(frozen=True, slots=True)
class HoldOperations(LogProofs):
    """Operations on legal holds. `people` are the keys that encrypt the names of persons."""

    bus: Bus
    repository_for: Callable[[str], ConfigRepository]
    people: PersonKeys

    async def list_holds(self, _request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return all legal holds."""
        return await self._listed()

    async def place_hold(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Place a legal hold. Raises `UnknownEntryError` if the customer is not configured."""
        reason = parse_body(HoldReason, request.body).reason
        repository, customer = self.repository_for(administrator.by), request.name
        customers = (await repository.declared()).configuration.customers
        if customer not in (*customers, DEFAULT_CUSTOMER):
            raise UnknownEntryError(f"No customer '{customer}' is configured.")
        entry = Hold(reason, time(), await self._pseudonym(administrator.by))
        # Store the hold before its event, so that the hold applies even if recording fails.
        await (await self._bucket()).put(f"{HOLD_PREFIX}{customer}", msgspec.json.encode(entry))
        _record(repository, HoldPlaced, customer, reason)
        return json_reply(self._shown(customer, entry))

    async def lift_hold(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Remove a legal hold. Raises `UnknownEntryError` if there is none."""
        reason = parse_body(HoldReason, request.body).reason
        bucket, customer = await self._bucket(), request.name
        if customer not in await held(bucket):
            raise UnknownEntryError(f"'{customer}' is not under a legal hold.")
        repository = self.repository_for(administrator.by)
        _record(repository, HoldLifted, customer, reason)
        await repository.delivered()
        await bucket.delete(f"{HOLD_PREFIX}{customer}")
        return await self._listed()

    async def _listed(self) -> AdminReply:
        found = sorted((await held(await self._bucket())).items())
        return json_reply({"items": [self._shown(customer, hold) for customer, hold in found]})

    def _shown(self, customer: str, hold: Hold) -> dict[str, Any]:
        by = self.people.reveal(hold.by).removeprefix(_OPERATOR)
        return {"customer": customer, "reason": hold.why, "since": hold.at, "by": by}

    async def _pseudonym(self, by: str) -> str:
        await self.people.learn([f"{_OPERATOR}{by}"])
        return self.people.pseudonym(f"{_OPERATOR}{by}")

    async def _bucket(self) -> Bucket:
        return await self.bus.bucket(CONFIG)


def _record(
    repository: ConfigRepository, event: type[HoldPlaced | HoldLifted], customer: str, reason: str
) -> None:
    number = f"{secrets.token_hex(10)}.{event.NAME}"
    repository.record(
        event(id=number, at=time(), customer=customer, by=repository.by, reason=reason)
    )
