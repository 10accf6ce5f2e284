"""The operation that lists budgets."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from toolbus_common.contracts import LedgerReply
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs

router = administration("budgets")


@router.get("", response_model=LedgerReply)
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
