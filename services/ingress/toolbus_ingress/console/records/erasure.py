"""Erasure of a person: first which logs name the person, then, confirmed by the name, for good."""

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.visitor import SignedIn

_API = "/api/v1/audit/erasures"
_NOT_CONFIRMED = "Nothing was erased: write the person exactly as shown to confirm."
router = APIRouter(prefix="/audit/erasures")


@router.get("")
async def show_form(visitor: SignedIn) -> Response:
    """Return the form for the person and the reason."""
    return visitor.page("audit_erasure.html", found=None, chosen={"person": "", "reason": ""})


@router.post("")
async def erase(visitor: SignedIn) -> Response:
    """Show which logs name the person, or erase the person if the name is confirmed."""
    form = visitor.form
    chosen = {name: form.get(name, "") for name in ("person", "reason")}
    confirmed = form.get("action") == "erase" and form.get("confirmed") == chosen["person"]
    query = {"dry_run": not confirmed}
    try:
        found = (await visitor.api.send("POST", _API, chosen, query=query)).data
    except ProblemError as problem:
        return visitor.page(
            "audit_erasure.html", problem.status, found=None, chosen=chosen, problem=problem
        )
    refused = form.get("action") == "erase" and not confirmed
    return visitor.page(
        "audit_erasure.html", 422 if refused else 200, found=found,
        chosen={**chosen, "person": found["person"]}, error=_NOT_CONFIRMED if refused else "",
    )  # fmt: skip
