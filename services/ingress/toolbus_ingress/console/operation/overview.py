"""The first page: what needs attention, and where to begin."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.operation.traffic import PERIODS, Traffic, traffic_of
from toolbus_ingress.console.visitor import SignedIn, Visitor

NEAR = 0.8  # used share of a budget that needs attention
MAX_SHOWN = 8
router = APIRouter()


@router.get("")
@router.get("/overview")
async def show_overview(visitor: SignedIn, period: str = "day") -> Response:
    """Return the overview, with the traffic of a period."""
    servers, keys, budgets, approvals, state, traffic = await asyncio.gather(
        _read(visitor, "read", "/api/v1/servers"),
        _read(visitor, "read", "/api/v1/keys"),
        _read(visitor, "budgets", "/api/v1/budgets"),
        _read(visitor, "approvals", "/api/v1/approvals"),
        _read(visitor, "read", "/api/v1/status"),
        _traffic(visitor, period),
    )
    near = sorted(
        (each for each in _with_share(budgets) if each["share"] >= NEAR),
        key=lambda each: -each["share"],
    )
    return visitor.page(
        "overview.html",
        servers=servers.get("items", []),
        more_servers=bool(servers.get("next")),
        keys=keys.get("items", []),
        near=near[:MAX_SHOWN],
        traffic=traffic if isinstance(traffic, Traffic) else None,
        unknown=traffic if isinstance(traffic, str) else "",
        periods=PERIODS,
        period=period if period in PERIODS else "day",
        troubles=troubles(state),
        approvals=approvals.get("approvals", [])[:MAX_SHOWN],
    )


def troubles(state: dict[str, Any]) -> list[str]:
    """Return a message for each service and server that does not work, and each alarm."""
    services = [
        f"{each['service']}: {each['reason'] or 'not ready'}"
        for each in state.get("services", [])
        if not each["ready"]
    ]
    servers = [
        f"Server {each['name']}: {each.get('last_failure') or each['state']}"
        for each in state.get("servers", [])
        if each["state"] not in ("ready", "starting")
    ]
    missing = [f"{each}: no replica replied" for each in state.get("missing", [])]
    return [
        *state.get("alarms", []),
        *state.get("guard_failures", []),
        *missing,
        *services,
        *servers,
    ]


async def _traffic(visitor: Visitor, period: str) -> Traffic | str | None:
    """Return the traffic, or why it is not known; None if the person may not query events."""
    if "audit" not in visitor.rights:
        return None
    try:
        return await traffic_of(visitor, period)
    except ProblemError as problem:
        return f"Calls and spending are not known: {problem.detail} {problem.fix}"


async def _read(visitor: Visitor, right: str, path: str) -> dict[str, Any]:
    """Return the answer of an operation; empty if the person may not perform it."""
    return await visitor.api.get(path) if right in visitor.rights else {}


def _with_share(reply: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {**row, "share": (row["spent"] + row["reserved"]) / row["limit"]}
        for row in reply.get("budgets", [])
        if row.get("limit")
    ]
