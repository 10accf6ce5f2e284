"""Calls as they happen."""

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console import LIVE
from toolbus_ingress.console.visitor import SignedIn

router = APIRouter(prefix="/live")


@router.get("")
async def show_calls(
    visitor: SignedIn, key: str = "", tool: str = "", result: str = ""
) -> Response:
    """Return the page; its script reads the stream of events."""
    return visitor.page("live.html", stream=LIVE, key=key, tool=tool, result=result)
