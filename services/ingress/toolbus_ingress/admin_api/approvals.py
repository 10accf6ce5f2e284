"""Operations of administrators on calls, and on definitions, that wait for approval."""

from typing import Annotated

from starlette.responses import Response

from toolbus_common.admin_api.installation_models import (
    DefinitionDecision,
    DefinitionResponse,
    DefinitionsResponse,
)
from toolbus_common.admin_api.models import Decision
from toolbus_common.contracts import ApprovalsReply, ApprovalState
from toolbus_ingress.admin_api.parameters import After, ApprovalId, Everything, Limit, Name, Search
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs

router, definitions = administration("approvals"), administration("servers")


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


@definitions.get("/{name}/definitions", response_model=DefinitionsResponse)
async def list_definitions(
    call: Annotated[PolicyCall, performs("list_definitions")],
    name: Name,
    limit: Limit = 100,
    after: After = "",
    search: Search = "",
    everything: Everything = "false",
) -> Response:
    """List a server's quarantined definitions, or all of its definitions."""
    return await call.run(
        name=name, limit=limit, after=after, search=search, everything=everything == "true"
    )


@definitions.post("/{name}/definitions/approve", response_model=DefinitionResponse)
async def approve_definition(
    call: Annotated[PolicyCall, performs("approve_definition", body=DefinitionDecision)],
    name: Name,
) -> Response:
    """Approve exactly this definition of a server; clients can use it."""
    return await call.run(name=name)


@definitions.post("/{name}/definitions/reject", response_model=DefinitionResponse)
async def reject_definition(
    call: Annotated[PolicyCall, performs("reject_definition", body=DefinitionDecision)],
    name: Name,
) -> Response:
    """Reject exactly this definition of a server; it is hidden in every mode."""
    return await call.run(name=name)
