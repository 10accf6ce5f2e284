"""Operations of administrators on calls that wait for approval."""

from typing import Annotated

from starlette.responses import Response

from toolbus_common.admin_api.models import Decision
from toolbus_common.contracts import ApprovalsReply, ApprovalState
from toolbus_ingress.admin_api.parameters import ApprovalId
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs

router = administration("approvals")


@router.get("", response_model=ApprovalsReply)
async def list_approvals(call: Annotated[PolicyCall, performs("list_approvals")]) -> Response:
    """List the calls that wait for approval, oldest first."""
    return await call.run()


@router.get("/{name}", response_model=ApprovalState)
async def show_approval(
    call: Annotated[PolicyCall, performs("show_approval")], name: ApprovalId
) -> Response:
    """Return one approval in full."""
    return await call.run(name=name)


@router.post("/{name}/approve", response_model=ApprovalState)
async def approve_call(
    call: Annotated[PolicyCall, performs("approve_call", body=Decision)], name: ApprovalId
) -> Response:
    """Approve the call; it may run once."""
    return await call.run(name=name)


@router.post("/{name}/reject", response_model=ApprovalState)
async def reject_call(
    call: Annotated[PolicyCall, performs("reject_call", body=Decision)], name: ApprovalId
) -> Response:
    """Reject the call."""
    return await call.run(name=name)
