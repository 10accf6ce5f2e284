"""Administrators' view of the installation and its catalogue, and explanations of calls."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from toolbus_common.access.administrators import Administrator
from toolbus_common.admin_api.models import ExplainedCall
from toolbus_common.contracts import (
    AdminReply,
    AdminRequest,
    ExplainQuery,
    Explanation,
    ServersQuery,
    ServersReply,
)
from toolbus_common.errors import UnknownEntryError
from toolbus_common.server_catalogue.catalogue import entries, matching
from toolbus_common.server_catalogue.responses import entry_response
from toolbus_common.status.installation import checks_of, state_of
from toolbus_policy.admin.pagination import page
from toolbus_policy.admin.records.event_queries import json_reply
from toolbus_policy.admin.records.rule_replays import ReplayOperations
from toolbus_policy.admin.request_parser import parse_body


@dataclass(frozen=True, slots=True)
class InstallationOperations(ReplayOperations):
    """Operations that read the installation's state, recorded events, or the catalogue.

    `show_explanation` explains the decision about a call without making the call.
    """

    explain: Callable[[ExplainQuery], Awaitable[Explanation]]

    async def show_status(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return the services, the alarms, and one page of servers."""
        state = await state_of(self.requests, self.bus)
        servers = {str(each["name"]): each for each in state.servers}
        listing = page(servers, servers.__getitem__, request)
        return json_reply(
            {
                "services": [each.model_dump() for each in state.services],
                "missing": state.missing,
                "servers": listing["items"],
                "guard_failures": state.guard_failures,
                "alarms": state.alarms,
                "next": listing["next"],
            }
        )

    async def list_server_states(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return one page of the states of servers whose names match the search."""
        reply = await self.requests.request(ServersQuery(), ServersReply)
        servers = {str(each["name"]): each for each in reply.servers}
        return json_reply(page(servers, servers.__getitem__, request))

    async def show_checks(self, _request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return the checks of the installation that need no access to its machines."""
        return json_reply({"checks": await checks_of(self.requests, self.bus)})

    async def list_catalogue(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return one page of the entries of the catalogue of servers that match the search."""
        known = await asyncio.to_thread(entries)
        found = {each.name: each for each in matching(known.values(), request.search)}
        every = request.model_copy(update={"search": ""})
        return json_reply(page(found, lambda name: entry_response(found[name]).model_dump(), every))

    async def show_catalogue_entry(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return one entry of the catalogue, with the server that it configures."""
        known = await asyncio.to_thread(entries)
        if request.name not in known:
            raise UnknownEntryError(
                f"The catalogue has no entry '{request.name}'; list its entries to see the names."
            )
        return json_reply(entry_response(known[request.name]).model_dump())

    async def show_explanation(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return how a call with a key would be decided, and why."""
        call: ExplainedCall = parse_body(ExplainedCall, request.body)
        arguments = msgspec.json.encode(call.arguments).decode()
        query = ExplainQuery(key=request.name, name=call.name, arguments=arguments)
        return json_reply((await self.explain(query)).model_dump())
