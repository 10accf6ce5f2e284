"""Budgets: the used amount of each, and the time of its next reset."""

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.visitor import SignedIn

router = APIRouter(prefix="/budgets")


@router.get("")
async def list_budgets(visitor: SignedIn, customer: str = "") -> Response:
    """Return the budgets of all customers, or of one."""
    reply = await visitor.api.get("/api/v1/budgets", customer=customer)
    rows = sorted(reply["budgets"], key=lambda row: -_share(row))
    return visitor.page(
        "budgets.html",
        rows=[{**row, "share": _share(row)} for row in rows],
        lost=reply["lost"],
        more=reply["more"],
        customer=customer,
    )


def _share(row: dict[str, int]) -> float:
    return (row["spent"] + row["reserved"]) / row["limit"] if row["limit"] else 0.0
