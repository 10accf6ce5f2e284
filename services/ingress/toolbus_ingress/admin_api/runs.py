"""Operations of administrators on runs of agent mode."""

from typing import Annotated

from starlette.responses import Response

from toolbus_common.contracts import AgentRunState, RunsReply
from toolbus_ingress.admin_api.parameters import After, Limit, RunId
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs

router = administration("runs")


@router.get("", response_model=RunsReply)
async def list_runs(
    call: Annotated[PolicyCall, performs("list_runs")], limit: Limit = 100, after: After = ""
) -> Response:
    """List the runs of agent mode, the newest first, without content."""
    return await call.run(limit=limit, after=after)


@router.get("/{name}", response_model=AgentRunState)
async def show_run(call: Annotated[PolicyCall, performs("show_run")], name: RunId) -> Response:
    """Return one run, with its calls."""
    return await call.run(name=name)


@router.post("/{name}/cancel", response_model=AgentRunState)
async def cancel_run(call: Annotated[PolicyCall, performs("cancel_run")], name: RunId) -> Response:
    """Cancel one run: its request ends, and it cannot be continued."""
    return await call.run(name=name)
