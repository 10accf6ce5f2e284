"""Runs of agent mode for their callers: `/v1/agent/runs`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Security
from starlette.responses import Response

from toolbus_common.contracts import AgentRunState, OwnRunsRequest, RunsReply
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.rest.application import ServedEndpoint, json_answer
from toolbus_ingress.rest.openapi import problems
from toolbus_ingress.rest.parameters import matching, reject_unknown_parameters
from toolbus_ingress.tools_api.routes import authenticated

SECONDS = 20.0
RUNS = "/v1/agent/runs"
router = APIRouter(prefix=RUNS, tags=["models"], dependencies=[Depends(reject_unknown_parameters)])

_RUN = "^[0-9a-f]{1,64}$"
_INVALID = "The id of the run is invalid. GET /v1/agent/runs lists the ids."
RunId = Annotated[str, Path(pattern=_RUN), matching(_RUN, _INVALID)]
Limit = Annotated[
    int,
    Query(ge=1, le=1000, description="Maximum number of runs."),
    matching("[0-9]{1,4}", "limit must be a number from 1 to 1000."),
]
OwnCaller = Annotated[Caller, Security(authenticated)]
Older = Annotated[str, Query(pattern="^[0-9a-f]{0,64}$", description="Only runs before this run.")]


@router.get("", response_model=RunsReply, responses=problems(400, 401, 403, 404, 431, 503))
async def list_own_runs(
    endpoint: ServedEndpoint, caller: OwnCaller, limit: Limit = 100, after: Older = ""
) -> Response:
    """List the caller's runs of agent mode, the newest first, without content."""
    request = OwnRunsRequest(key_digest=caller.key_digest, limit=limit, after=after)
    return json_answer((await _sent(endpoint, request)).encode())


@router.get(
    "/{run}", response_model=AgentRunState, responses=problems(400, 401, 403, 404, 431, 503)
)
async def show_own_run(endpoint: ServedEndpoint, caller: OwnCaller, run: RunId) -> Response:
    """Return one run of the caller, with its calls."""
    return await _one(endpoint, OwnRunsRequest(key_digest=caller.key_digest, run=run))


@router.delete(
    "/{run}", response_model=AgentRunState, responses=problems(400, 401, 403, 404, 409, 431, 503)
)
async def cancel_own_run(endpoint: ServedEndpoint, caller: OwnCaller, run: RunId) -> Response:
    """Cancel one run of the caller: its request ends, and it cannot be continued."""
    request = OwnRunsRequest(key_digest=caller.key_digest, run=run, cancel=True)
    return await _one(endpoint, request)


async def _one(endpoint: ServedEndpoint, request: OwnRunsRequest) -> Response:
    (run,) = (await _sent(endpoint, request)).runs
    return json_answer(run.encode())


async def _sent(endpoint: ServedEndpoint, request: OwnRunsRequest) -> RunsReply:
    return await endpoint.service.requests.request(request, RunsReply, SECONDS)
