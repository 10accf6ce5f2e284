"""Administrators' queries of recorded events: SQL, saved queries, and pages of an export."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from toolbus_common.access.administrators import Administrator
from toolbus_common.admin_api.installation_models import (
    AuditStatement,
    EventSelection,
    SavedStatement,
)
from toolbus_common.contracts import (
    AdminReply,
    AdminRequest,
    AuditQuery,
    EventsQuery,
    EventsReply,
    RowsReply,
)
from toolbus_common.errors import InvalidConfigurationError, InvalidError, OverloadedError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.saved_queries.catalogue import Saved, chosen, known
from toolbus_policy.admin.request_parser import parse_body

SECONDS = 18.0  # shorter than the timeout of ingress
AT_ONCE = 2  # concurrent queries of events; more would delay other administrators
WAIT_SECONDS = 2.0
PAGE_BYTES = 5 << 20  # in base64, a page fits into a message of the bus


@dataclass(frozen=True, slots=True)
class EventQueries:
    """Operations that read recorded events."""

    requests: RequestReply
    free: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(AT_ONCE), kw_only=True
    )

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
        return json_reply(found.model_dump())

    async def show_audit_events(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return one page of events. Raises like `show_audit_rows`."""
        selection: EventSelection = parse_body(EventSelection, request.body)
        query = EventsQuery(**selection.model_dump(), max_bytes=PAGE_BYTES)
        async with self._queried("events"):
            found = await self.requests.request(query, EventsReply, SECONDS)
        return json_reply({**found.model_dump(), "data": b64encode(found.data).decode()})

    async def list_saved_queries(self, _request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return every saved query."""
        saved = await asyncio.to_thread(known, None)
        return json_reply({"items": [_shown(each) for each in saved.values()]})

    async def show_saved_rows(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return the rows of one saved query. Raises also `UnknownEntryError`."""
        statement: SavedStatement = parse_body(SavedStatement, request.body)
        saved = await asyncio.to_thread(chosen, request.name, None)
        async with self._queried("parameters"):
            bound = saved.bound(statement.parameters, datetime.now(UTC))
            query = AuditQuery(
                sql=_selected(saved.sql, statement.contains),
                parameters=bound
                | {f"in_{name}": text for name, text in statement.contains.items()},
                limit=statement.limit,
            )
            found = await self.requests.request(query, RowsReply, SECONDS)
        return json_reply(found.model_dump())

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
        except InvalidConfigurationError:
            raise  # it names the part already
        except InvalidError as error:
            reason = error.reason.rstrip(".")
            raise InvalidConfigurationError(
                f"{location}: {reason}.",
                errors=[{"location": location, "line": 0, "reason": reason}],
            ) from error
        finally:
            self.free.release()


def json_reply(value: Any) -> AdminReply:
    """Return a reply with this value."""
    return AdminReply(body=msgspec.json.encode(value))


def _shown(saved: Saved) -> dict[str, Any]:
    parameters = [
        {"name": each.name, "type": each.type, "default": each.usual, "about": each.about}
        for each in saved.parameters
    ]
    return {
        "name": saved.name, "about": saved.about, "parameters": parameters, "sql": saved.sql,
    }  # fmt: skip


def _selected(sql: str, contains: dict[str, str]) -> str:
    """Return a statement for the rows whose columns contain the texts of its parameters."""
    if not contains:
        return sql
    found = (
        f"positionCaseInsensitiveUTF8(toString({name}), {{in_{name}:String}}) > 0"
        for name in contains
    )
    return f"SELECT * FROM (\n{sql}\n) WHERE {' AND '.join(found)}"  # noqa: S608 - names are checked
