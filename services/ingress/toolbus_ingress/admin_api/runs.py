"""Operations of administrators on runs of agent mode, and on what runs have read."""

from typing import Annotated

from starlette.responses import Response

from toolbus_common.admin_api.models import ResetReason
from toolbus_common.contracts import AgentRunState, FlowRun, FlowRunsReply, RunsReply
from toolbus_ingress.admin_api.parameters import After, Limit, RunId
from toolbus_ingress.admin_api.policy_call import PolicyCall, administration, performs

router, flow = administration("runs"), administration("flow")


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


@flow.get("/runs", response_model=FlowRunsReply)
async def list_flow_runs(call: Annotated[PolicyCall, performs("list_flow_runs")]) -> Response:
    """List the runs that have read private or untrusted content, the newest first."""
    return await call.run()


@flow.post("/runs/{name}/reset", response_model=FlowRun)
async def reset_flow_run(
    call: Annotated[PolicyCall, performs("reset_flow_run", body=ResetReason)], name: RunId
) -> Response:
    """Clear the record of what a run has read; later calls count as if it had read nothing."""
    return await call.run(name=name)
