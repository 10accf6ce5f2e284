"""Administrators' view of the installation, and their queries of recorded events."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from toolbus_common.access.administrators import Administrator
from toolbus_common.admin_api.installation_models import AuditStatement, EventSelection
from toolbus_common.config_store.redacted_view import configuration_error
from toolbus_common.contracts import (
    AdminReply,
    AdminRequest,
    AuditQuery,
    EventsQuery,
    EventsReply,
    RowsReply,
)
from toolbus_common.errors import InvalidError, OverloadedError, UnknownEntryError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.server_catalogue.catalogue import entries, matching
from toolbus_common.server_catalogue.responses import entry_response
from toolbus_common.status.installation import checks_of, state_of
from toolbus_policy.admin.pagination import page
from toolbus_policy.admin.request_parser import parse_body

SECONDS = 18.0  # less than ingress waits
AT_ONCE = 2  # queries of events, so that they do not delay other administrators
WAIT_SECONDS = 2.0
PAGE_BYTES = 5 << 20  # in base64, a page fits into a message of the bus


@dataclass(frozen=True, slots=True)
class InstallationOperations:
    """Operations that read the installation's state, recorded events, or the catalogue."""

    requests: RequestReply
    bus: Bus
    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def show_status(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return the services, the alarms, and one page of servers."""
        state = await state_of(self.requests, self.bus)
        servers = {str(each["name"]): each for each in state.servers}
        listing = page(servers, servers.__getitem__, request)
        return _json(
            {
                "services": [each.model_dump() for each in state.services],
                "missing": state.missing,
                "servers": listing["items"],
                "guard_failures": state.guard_failures,
                "alarms": state.alarms,
                "next": listing["next"],
            }
        )

    async def show_checks(self, _request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return the checks of the installation that need no access to its machines."""
        return _json({"checks": await checks_of(self.requests, self.bus)})

    async def list_catalogue(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return one page of the entries of the catalogue of servers that match the search."""
        known = await asyncio.to_thread(entries)
        found = {each.name: each for each in matching(known.values(), request.search)}
        every = request.model_copy(update={"search": ""})
        return _json(page(found, lambda name: entry_response(found[name]).model_dump(), every))

    async def show_catalogue_entry(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return one entry of the catalogue, with the server that it configures."""
        known = await asyncio.to_thread(entries)
        if request.name not in known:
            raise UnknownEntryError(f"The catalogue has no entry '{request.name}'.")
        return _json(entry_response(known[request.name]).model_dump())

    async def show_audit_rows(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return the rows of one read-only statement.

        Raises:
            InvalidConfigurationError: audit rejected the statement.
            OverloadedError: too many queries of events are running.

        """
        statement: AuditStatement = parse_body(AuditStatement, request.body)
        query = AuditQuery(**statement.model_dump())
        async with self._queried("sql"):
            found = await self.requests.request(query, RowsReply, SECONDS)
        return _json(found.model_dump())

    async def show_audit_events(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return one page of events. Raises like `show_audit_rows`."""
        selection: EventSelection = parse_body(EventSelection, request.body)
        query = EventsQuery(**selection.model_dump(), max_bytes=PAGE_BYTES)
        async with self._queried("events"):
            found = await self.requests.request(query, EventsReply, SECONDS)
        return _json({**found.model_dump(), "data": b64encode(found.data).decode()})

    @asynccontextmanager
    async def _queried(self, location: str) -> AsyncIterator[None]:
        """Limit the concurrent queries, and name the part of the body that audit rejects."""
        try:
            await asyncio.wait_for(self.free.acquire(), WAIT_SECONDS)
        except TimeoutError as error:
            raise OverloadedError(
                f"{AT_ONCE} queries of events are running; send the request again in some seconds."
            ) from error
        try:
            yield
        except InvalidError as error:
            reason = error.reason.rstrip(".")
            raise configuration_error(
                [{"location": location, "line": 0, "reason": reason}]
            ) from error
        finally:
            self.free.release()


def _json(value: Any) -> AdminReply:
    return AdminReply(body=msgspec.json.encode(value))
