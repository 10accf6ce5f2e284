"""Queries of commands to a context's gateway: its state, and the events that audit stores."""

import asyncio
import json
from base64 import b64decode
from typing import Any, TypeVar, cast
from urllib.parse import quote

from toolbus_cli.errors import CommandError
from toolbus_cli.remote.client import PAGE, request
from toolbus_cli.remote.contexts import Context
from toolbus_common.contracts import AuditQuery, EventsQuery, EventsReply, ServiceStatus
from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query
from toolbus_common.status.installation import Check, InstallationState

A = TypeVar("A", bound=Message)


class RemoteQueries:
    """Sender of the queries to audit for which the administration API has an operation."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def request(self, query: Query, answer: type[A], seconds: float = 5.0) -> A:  # noqa: ARG002
        """Send a query and return the reply. Raises `CommandError`."""
        if isinstance(query, AuditQuery):
            found = await self._post("/audit/query", query)
        elif isinstance(query, EventsQuery):
            found = await self._post("/audit/events", query, "max_bytes")
            data = b64decode(found.pop("data"))
            return cast("A", EventsReply(**found, data=data))
        else:
            raise CommandError(
                f"{query.SUBJECT} is not an operation of the administration API; run the command "
                "on a machine of the installation."
            )
        return answer.model_validate_json(json.dumps(found))

    async def _post(self, path: str, query: Query, *omitted: str) -> dict[str, Any]:
        body = query.model_dump_json(exclude=set(omitted)).encode()
        form = "application/json"
        found: dict[str, Any] = await asyncio.to_thread(
            request, self._context, "POST", path, body, Content_Type=form
        )
        return found


def state_of(context: Context) -> InstallationState:
    """Return the state of the installation, with all its servers. Raises `CommandError`."""
    servers: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        found = request(context, "GET", f"/status?limit={PAGE}&after={quote(after)}")
        servers += found["servers"]
        after = found.get("next")
    services = [ServiceStatus.model_validate(each) for each in found["services"]]
    return InstallationState(services, servers, found["guard_failures"], found["alarms"])


def checks_of(context: Context) -> list[Check]:
    """Return the checks that the gateway made of its installation. Raises `CommandError`."""
    return list(request(context, "GET", "/status/checks")["checks"])
