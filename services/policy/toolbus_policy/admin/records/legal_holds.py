"""Administrators' operations on legal holds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolbus_common.access.administrators import Administrator
from toolbus_common.admin_api.installation_models import HoldReason
from toolbus_common.config_store import hold_changes
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import AdminReply, AdminRequest
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG
from toolbus_common.privacy.key_store import PersonKeys
from toolbus_common.privacy.legal_holds import Hold, held
from toolbus_policy.admin.records.event_queries import json_reply
from toolbus_policy.admin.records.log_proofs import LogProofs
from toolbus_policy.admin.request_parser import parse_body


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
        repository = self.repository_for(administrator.by)
        entry = await hold_changes.place(repository, self.people, request.name, reason)
        return json_reply(self._shown(request.name, entry))

    async def lift_hold(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Remove a legal hold. Raises `UnknownEntryError` if there is none."""
        reason = parse_body(HoldReason, request.body).reason
        await hold_changes.lift(self.repository_for(administrator.by), request.name, reason)
        return await self._listed()

    async def _listed(self) -> AdminReply:
        found = sorted((await held(await self.bus.bucket(CONFIG))).items())
        return json_reply({"items": [self._shown(customer, hold) for customer, hold in found]})

    def _shown(self, customer: str, hold: Hold) -> dict[str, Any]:
        by = self.people.reveal(hold.by).removeprefix(hold_changes.OPERATOR_KIND)
        return {"customer": customer, "reason": hold.why, "since": hold.at, "by": by}
