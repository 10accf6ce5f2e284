"""The state of the installation: services, servers, alarms, and the checks of `toolbus doctor`."""

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.visitor import SignedIn

PAGE = 100
router = APIRouter(prefix="/health")


@router.get("")
async def show_health(visitor: SignedIn, after: str = "") -> Response:
    """Return the state of every service, one page of servers, and the checks."""
    state, checks = await asyncio.gather(
        visitor.api.get("/api/v1/status", limit=PAGE, after=after),
        visitor.api.get("/api/v1/status/checks"),
    )
    return visitor.page("health.html", state=state, checks=checks["checks"], after=after)
