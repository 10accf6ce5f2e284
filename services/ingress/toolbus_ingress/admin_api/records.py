"""Operations of auditors: SQL, saved queries, exports, proofs, and legal holds."""

from typing import Annotated

from starlette.responses import Response

from toolbus_common.admin_api.installation_models import (
    AuditStatement,
    EventSelection,
    EventsResponse,
    HoldReason,
    LegalHold,
    LegalHolds,
    ProofsResponse,
    SavedQueries,
    SavedStatement,
)
from toolbus_common.contracts import RowsReply
from toolbus_ingress.admin_api.parameters import CallId, Name, QueryName
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs

router = administration("audit")


@router.post("/query", response_model=RowsReply)
async def show_audit_rows(
    call: Annotated[PolicyCall, performs("show_audit_rows", body=AuditStatement)],
) -> Response:
    """Run one read-only SQL statement on the recorded events."""
    return await call.run()


@router.post("/events", response_model=EventsResponse)
async def show_audit_events(
    call: Annotated[PolicyCall, performs("show_audit_events", body=EventSelection)],
) -> Response:
    """Export one page of recorded events, ordered by time."""
    return await call.run()


@router.get("/queries", response_model=SavedQueries)
async def list_saved_queries(
    call: Annotated[PolicyCall, performs("list_saved_queries")],
) -> Response:
    """List the saved queries with their parameters and SQL."""
    return await call.run()


@router.post("/queries/{name}", response_model=RowsReply)
async def show_saved_rows(
    call: Annotated[PolicyCall, performs("show_saved_rows", body=SavedStatement)], name: QueryName
) -> Response:
    """Run one saved query on the recorded events."""
    return await call.run(name=name)


@router.get("/proofs/{name}", response_model=ProofsResponse)
async def show_proofs(
    call: Annotated[PolicyCall, performs("show_proofs")], name: CallId
) -> Response:
    """Prove that the events of one call are in the signed log, and check the proofs."""
    return await call.run(name=name)


@router.get("/holds", response_model=LegalHolds)
async def list_holds(call: Annotated[PolicyCall, performs("list_holds")]) -> Response:
    """List the legal holds."""
    return await call.run()


@router.put("/holds/{name}", response_model=LegalHold)
async def place_hold(
    call: Annotated[PolicyCall, performs("place_hold", body=HoldReason)], name: Name
) -> Response:
    """Place a legal hold on the events of a customer."""
    return await call.run(name=name)


@router.post("/holds/{name}/lift", response_model=LegalHolds)
async def lift_hold(
    call: Annotated[PolicyCall, performs("lift_hold", body=HoldReason)], name: Name
) -> Response:
    """Remove a legal hold, and return the others."""
    return await call.run(name=name)
