"""The operations that show the state of the installation, and recorded events."""

from typing import Annotated

from starlette.responses import Response

from toolbus_common.admin_api.models import (
    AuditStatement,
    ChecksResponse,
    EventSelection,
    EventsResponse,
    StatusResponse,
)
from toolbus_common.contracts import RowsReply
from toolbus_ingress.admin_api.parameters import After, Limit
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs

status, audit = administration("status"), administration("audit")


@status.get("", response_model=StatusResponse)
async def show_status(
    call: Annotated[PolicyCall, performs("show_status")], limit: Limit = 100, after: After = ""
) -> Response:
    """Return the state of every service, the alarms, and one page of upstream servers."""
    return await call.run(limit=limit, after=after)


@status.get("/checks", response_model=ChecksResponse)
async def show_checks(call: Annotated[PolicyCall, performs("show_checks")]) -> Response:
    """Check buckets, services, the stream of events and guards for common problems."""
    return await call.run()


@audit.post("/query", response_model=RowsReply)
async def show_audit_rows(
    call: Annotated[PolicyCall, performs("show_audit_rows", body=AuditStatement)],
) -> Response:
    """Run one read-only SQL statement on the recorded events."""
    return await call.run()


@audit.post("/events", response_model=EventsResponse)
async def show_audit_events(
    call: Annotated[PolicyCall, performs("show_audit_events", body=EventSelection)],
) -> Response:
    """Export one page of recorded events, ordered by time."""
    return await call.run()
