"""Approvals: the calls that wait for a person."""

from time import time

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_common.web.json_view import readable
from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.responses import redirect
from toolbus_ingress.console.visitor import SignedIn, address

_API = "/api/v1/approvals"
router = APIRouter(prefix="/approvals")


@router.get("")
async def list_approvals(visitor: SignedIn) -> Response:
    """Return the waiting calls, the oldest first."""
    reply = await visitor.api.get(_API)
    return visitor.page("approvals.html", rows=reply["approvals"], more=reply["more"])


@router.get("/{approval}")
async def show_approval(visitor: SignedIn, approval: str) -> Response:
    """Return one call with its arguments."""
    state = await visitor.api.get(f"{_API}/{approval}")
    return visitor.page(
        "approval.html",
        approval=state,
        arguments=readable(state["arguments"]).split("\n"),
        minutes=max(0, int(state["ends"] - time()) // 60),
    )


@router.post("/{approval}")
async def decide(visitor: SignedIn, approval: str) -> Response:
    """Approve or reject a call."""
    action = "approve" if visitor.form.get("action") == "approve" else "reject"
    note = {"note": visitor.form.get("note", "")[:512]}
    try:
        await visitor.api.send("POST", f"{_API}/{approval}/{action}", note)
    except ProblemError as problem:
        reply = await visitor.api.get(_API)
        return visitor.page(
            "approvals.html",
            problem.status,
            rows=reply["approvals"],
            more=reply["more"],
            problem=problem,
        )
    return redirect(address("approvals"))
