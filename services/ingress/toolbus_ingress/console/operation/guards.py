"""Guards: where each is attached, what it checked and found, and every gap."""

import asyncio
from collections import defaultdict
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.operation.models import saved_rows
from toolbus_ingress.console.visitor import SignedIn

PERIODS = ("1h", "24h", "7d", "30d")
PAGE = 1000
router = APIRouter(prefix="/guards")


@router.get("")
async def list_guards(visitor: SignedIn, since: str = "24h") -> Response:
    """Return the guards with their coverage and findings of a period."""
    period = since if since in PERIODS else "24h"
    guards, coverage, findings = await asyncio.gather(
        visitor.api.get("/api/v1/guards", limit=PAGE),
        visitor.api.get("/api/v1/guards/coverage", since=period, limit=PAGE),
        saved_rows(visitor, "guard-findings", since=period),
    )
    sums: dict[str, dict[str, Any]] = defaultdict(
        lambda: {"calls": 0, "checked": 0, "gaps": 0, "attached_by": set()}
    )
    for each in coverage["items"]:
        one = sums[each["guard"]]
        one["calls"] += each["calls"]
        one["checked"] += each["checked"]
        one["gaps"] += each["missing"] + each["failed"]
        one["attached_by"].update(each["attached_by"])
    rows = [
        {"name": each["name"], "value": each["value"], "sums": sums.get(each["name"])}
        for each in guards["items"]
    ]
    gaps = [each for each in coverage["items"] if each["missing"] or each["failed"]]
    return visitor.page(
        "guards.html", rows=rows, gaps=gaps, findings=findings, periods=PERIODS, since=period,
        unguarded=coverage["without_guards"], complete=coverage["complete"],
        recorded="audit" in visitor.rights,
    )  # fmt: skip
