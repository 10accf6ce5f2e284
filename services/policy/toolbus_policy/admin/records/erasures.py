"""Administrators' erasure of persons from recorded events."""

from dataclasses import dataclass
from time import monotonic

from toolbus_common.access.administrators import Administrator
from toolbus_common.admin_api.installation_models import Erasure
from toolbus_common.config_store import erasure
from toolbus_common.contracts import AdminReply, AdminRequest
from toolbus_policy.admin.records.event_queries import json_reply
from toolbus_policy.admin.records.legal_holds import HoldOperations
from toolbus_policy.admin.request_parser import parse_body

QUERY_SECONDS = 4.0
# Two queries, a wait for other queries, and the confirmations take less time than ingress waits:
# if it stopped waiting, the administrator would not learn that the person is erased.
CONFIRMED_BY_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class ErasureOperations(HoldOperations):
    """The operation that erases a person."""

    async def erase_person(self, request: AdminRequest, administrator: Administrator) -> AdminReply:
        """Erase a person, or with `dry_run` only return which logs name the person.

        Raises:
            UnknownEntryError: no event names the person, or the person is already erased.
            ConflictError: a log that names the person is under a legal hold.
            BusDownError: the erasure is incomplete and must be repeated.

        """
        until = monotonic() + CONFIRMED_BY_SECONDS
        chosen: Erasure = parse_body(Erasure, request.body)
        repository = self.repository_for(administrator.by)
        async with self._queried("person"):
            found = await erasure.found(
                repository, self.requests, self.people, chosen.person, QUERY_SECONDS
            )
        confirmed = erasure.Confirmed(0, 0)
        if not request.dry_run:
            confirmed = await erasure.erase(
                repository, self.requests, self.people, found, chosen.reason, until - monotonic()
            )
        return json_reply(
            {
                "person": found.person.name,
                "customers": found.customers,
                "plain": found.plain,
                "erased": not request.dry_run,
                "confirmed": confirmed.replicas,
                "unconfirmed": confirmed.behind,
            }
        )
