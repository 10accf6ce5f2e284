"""Administrators' decisions about quarantined definitions of servers."""

from collections.abc import Callable
from dataclasses import dataclass

from toolbus_common.access.administrators import Administrator
from toolbus_common.admin_api.installation_models import DefinitionDecision
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import AdminReply, AdminRequest
from toolbus_common.definitions.pins import Case, Pinboard, at_pins, changed_again, review_of
from toolbus_common.errors import ConflictError
from toolbus_policy.admin.pagination import page
from toolbus_policy.admin.records.event_queries import json_reply
from toolbus_policy.admin.request_parser import parse_body


@dataclass(frozen=True, slots=True)
class DefinitionOperations:
    """Operations on the definitions of a server. Events record who decided."""

    repository_for: Callable[[str], ConfigRepository]

    async def list_definitions(
        self, request: AdminRequest, administrator: Administrator
    ) -> AdminReply:
        """Return one page of a server's definitions: the quarantined ones, or all."""
        board = await at_pins(self.repository_for(administrator.by))
        cases = await board.cases(request.name, everything=request.everything)
        named = {f"{each.kind}/{each.offered.name}": each for each in cases}
        return json_reply(page(named, lambda name: review_of(named[name]), request))

    async def approve_definition(
        self, request: AdminRequest, administrator: Administrator
    ) -> AdminReply:
        """Approve a definition: clients can use it."""
        board, case = await self._chosen(request, administrator)
        await board.approve(case)
        return await self._decided(board, request, case)

    async def reject_definition(
        self, request: AdminRequest, administrator: Administrator
    ) -> AdminReply:
        """Reject a definition: it is hidden in every mode."""
        board, case = await self._chosen(request, administrator)
        await board.reject(case)
        return await self._decided(board, request, case)

    async def _chosen(
        self, request: AdminRequest, administrator: Administrator
    ) -> tuple[Pinboard, Case]:
        """Return the definition that a body names. Raises `ConflictError` if it has changed."""
        chosen: DefinitionDecision = parse_body(DefinitionDecision, request.body)
        board = await at_pins(self.repository_for(administrator.by))
        for case in await board.cases(request.name, everything=True):
            found = (case.kind, case.offered.name, case.offered.digest)
            if found == (chosen.kind, chosen.name, chosen.digest):
                return board, case
        raise ConflictError(changed_again(f"{request.name}__{chosen.name}"))

    async def _decided(self, board: Pinboard, request: AdminRequest, case: Case) -> AdminReply:
        """Return the definition with the decision."""
        for each in await board.cases(request.name, everything=True):
            if (each.kind, each.offered.name) == (case.kind, case.offered.name):
                return json_reply(review_of(each))
        return json_reply(review_of(case))
