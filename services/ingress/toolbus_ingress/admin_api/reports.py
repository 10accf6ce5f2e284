"""The operations that show budgets, guards' coverage, the state, and the catalogue."""

from typing import Annotated

import msgspec
from fastapi import Query
from starlette.responses import Response

from toolbus_common.admin_api.installation_models import (
    AuditStatement,
    ChecksResponse,
    Erasure,
    ErasureResponse,
    EventSelection,
    EventsResponse,
    HoldReason,
    LegalHold,
    LegalHolds,
    ProofsResponse,
    RuleReplay,
    RuleReplayResponse,
    SavedQueries,
    SavedStatement,
    ServerStates,
    StatusResponse,
)
from toolbus_common.admin_api.models import AGO, CoverageResponse
from toolbus_common.contracts import LedgerReply, RowsReply
from toolbus_common.server_catalogue.responses import CatalogueItem, CataloguePage
from toolbus_ingress.admin_api.parameters import (
    After,
    CallId,
    DryRun,
    Limit,
    Name,
    QueryName,
    Search,
)
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs
from toolbus_ingress.rest.parameters import matching

budgets, guards = administration("budgets"), administration("guards")
status, audit = administration("status"), administration("audit")
catalogue = administration("catalogue")
_AGO = "since must be a number of minutes, hours, days or weeks, such as 30m, 24h, 7d or 2w."


@budgets.get("", response_model=LedgerReply)
async def list_budgets(
    call: Annotated[PolicyCall, performs("list_budgets")],
    customer: Annotated[
        str,
        Query(
            max_length=64,
            pattern=r"^[A-Za-z0-9_-]*$",
            description="Return only budgets of this customer.",
        ),
    ] = "",
) -> Response:
    """List the budgets of one customer, or of all customers, with their use and next reset."""
    return await call.run(customer=customer)


@guards.get("/coverage", response_model=CoverageResponse)
async def show_coverage(
    call: Annotated[PolicyCall, performs("show_coverage")],
    *,
    since: Annotated[
        str, Query(pattern=AGO, description="How far back calls are counted."), matching(AGO, _AGO)
    ] = "24h",
    key: Annotated[str, Query(max_length=256, description="Only calls of this key.")] = "",
    tool: Annotated[
        str, Query(max_length=400, description="Only these tools (docs__*) or models (claude/*).")
    ] = "",
    gaps: Annotated[bool, Query(description="Only shares with a gap.")] = False,
    limit: Limit = 100,
    after: Annotated[
        str, Query(max_length=2048, description="Continue after this place: `next` of a page.")
    ] = "",
) -> Response:
    """Return the share of calls and bytes that each guard checked, and every gap."""
    selection = {"since": since, "key": key, "tool": tool, "gaps": gaps}
    body = msgspec.json.encode(selection)
    return await call.run(body=body, form="json", limit=limit, after=after)


@status.get("", response_model=StatusResponse)
async def show_status(
    call: Annotated[PolicyCall, performs("show_status")], limit: Limit = 100, after: After = ""
) -> Response:
    """Return the state of every service, the alarms, and one page of upstream servers."""
    return await call.run(limit=limit, after=after)


@status.get("/servers", response_model=ServerStates)
async def list_server_states(
    call: Annotated[PolicyCall, performs("list_server_states")],
    limit: Limit = 100,
    after: After = "",
    search: Search = "",
) -> Response:
    """List the states of upstream servers, providers and guards with a service."""
    return await call.run(limit=limit, after=after, search=search)


@status.get("/checks", response_model=ChecksResponse)
async def show_checks(call: Annotated[PolicyCall, performs("show_checks")]) -> Response:
    """Check services, the stream of events and guards for common problems."""
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


@audit.get("/queries", response_model=SavedQueries)
async def list_saved_queries(
    call: Annotated[PolicyCall, performs("list_saved_queries")],
) -> Response:
    """List the saved queries with their parameters and SQL."""
    return await call.run()


@audit.post("/queries/{name}", response_model=RowsReply)
async def show_saved_rows(
    call: Annotated[PolicyCall, performs("show_saved_rows", body=SavedStatement)], name: QueryName
) -> Response:
    """Run one saved query on the recorded events."""
    return await call.run(name=name)


@audit.get("/proofs/{name}", response_model=ProofsResponse)
async def show_proofs(
    call: Annotated[PolicyCall, performs("show_proofs")], name: CallId
) -> Response:
    """Prove that the events of one call are in the signed log, and check the proofs."""
    return await call.run(name=name)


@audit.post("/rule-replays", response_model=RuleReplayResponse)
async def show_rule_replay(
    call: Annotated[PolicyCall, performs("show_rule_replay", body=RuleReplay)],
) -> Response:
    """Decide recorded calls again with proposed rules, and return what would change."""
    return await call.run()


@audit.get("/holds", response_model=LegalHolds)
async def list_holds(call: Annotated[PolicyCall, performs("list_holds")]) -> Response:
    """List the legal holds."""
    return await call.run()


@audit.put("/holds/{name}", response_model=LegalHold)
async def place_hold(
    call: Annotated[PolicyCall, performs("place_hold", body=HoldReason)], name: Name
) -> Response:
    """Place a legal hold on the events of a customer."""
    return await call.run(name=name)


@audit.post("/holds/{name}/lift", response_model=LegalHolds)
async def lift_hold(
    call: Annotated[PolicyCall, performs("lift_hold", body=HoldReason)], name: Name
) -> Response:
    """Remove a legal hold, and return the others."""
    return await call.run(name=name)


@audit.post("/erasures", response_model=ErasureResponse)
async def erase_person(
    call: Annotated[PolicyCall, performs("erase_person", body=Erasure)], dry_run: DryRun = "false"
) -> Response:
    """Erase a person from recorded events; with dry_run=true, return the logs with the name."""
    return await call.run(dry_run=dry_run == "true")


@catalogue.get("", response_model=CataloguePage)
async def list_catalogue(
    call: Annotated[PolicyCall, performs("list_catalogue")],
    limit: Limit = 100,
    after: After = "",
    search: Search = "",
) -> Response:
    """List entries of the catalogue of servers; `search` selects those with all of its words."""
    return await call.run(limit=limit, after=after, search=search)


@catalogue.get("/{name}", response_model=CatalogueItem)
async def show_catalogue_entry(
    call: Annotated[PolicyCall, performs("show_catalogue_entry")], name: Name
) -> Response:
    """Return one entry of the catalogue, with the server that it configures."""
    return await call.run(name=name)
