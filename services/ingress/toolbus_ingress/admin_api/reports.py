"""The operations that list budgets and the coverage of guards."""

from typing import Annotated

import msgspec
from fastapi import Query
from starlette.responses import Response

from toolbus_common.admin_api.models import AGO, CoverageResponse
from toolbus_common.contracts import LedgerReply
from toolbus_ingress.admin_api.parameters import Limit
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs
from toolbus_ingress.rest.parameters import matching

budgets, guards = administration("budgets"), administration("guards")
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
