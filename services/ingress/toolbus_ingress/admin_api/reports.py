"""The operations that show budgets, guards' coverage, the state, and the catalogue."""

from typing import Annotated

import msgspec
from fastapi import Query
from starlette.responses import Response

from toolbus_common.admin_api.installation_models import ChecksResponse, StatusResponse
from toolbus_common.admin_api.models import AGO, CoverageResponse
from toolbus_common.contracts import LedgerReply
from toolbus_common.server_catalogue.responses import CatalogueItem, CataloguePage
from toolbus_ingress.admin_api.parameters import After, Limit, Name, Search
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs
from toolbus_ingress.rest.parameters import matching

budgets, guards = administration("budgets"), administration("guards")
status = administration("status")
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
        str, Query(pattern=AGO, description="Calls of this time before now."), matching(AGO, _AGO)
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


@status.get("/checks", response_model=ChecksResponse)
async def show_checks(call: Annotated[PolicyCall, performs("show_checks")]) -> Response:
    """Check services, the stream of events and guards for common problems."""
    return await call.run()


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
