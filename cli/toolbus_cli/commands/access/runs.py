"""Commands that list, show and cancel runs of agent mode."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json
from toolbus_cli.installation import find, joined
from toolbus_common.config import MICRO
from toolbus_common.contracts import AgentRunState, RunsReply, RunsRequest
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.web.json_view import visible

Id = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, from 'toolbus runs list'.")]


def list_runs(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The maximum number of runs.")] = 100,
    after: Annotated[str, typer.Option(help="Only runs that started before this run.")] = "",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """List the runs of agent mode of the last day, the newest first."""
    found = _request(state_dir, RunsRequest(limit=limit, after=after))
    if as_json:
        show_json(found.model_dump())
        return
    if not found.runs:
        say("There is no run.")
    say(*map(_line, found.runs))
    if found.more:
        say(f"There are older runs: toolbus runs list --after {found.runs[-1].run}")


def show(run: Id, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Show one run with its calls, without content."""
    (found,) = _request(state_dir, RunsRequest(run=run)).runs
    if as_json:
        show_json(found.model_dump())
        return
    say(_line(found), f"  trace {found.trace_id}")
    if found.reason:
        say(f"  {visible(found.reason)}")
    if found.approval:
        say(f"  waits for an approval: toolbus approvals {found.approval}")
    for step in found.steps:
        state = f"{step.state} ({step.code})" if step.code else step.state
        say(f"  {_time(step.at)}  {step.kind:5}  {visible(step.name)}  {state}  {step.call_id}")


def cancel(run: Id, *, state_dir: StateDir = DEFAULT_STATE) -> None:
    """Cancel one run: its request ends with an error, and the run cannot be continued."""
    _request(state_dir, RunsRequest(run=run, cancel=True))
    say(f"Cancelled {run}.")


def _request(state_dir: Path, request: RunsRequest) -> RunsReply:
    async def send() -> RunsReply:
        async with joined(find(state_dir)) as bus:
            return await RequestReply(OPERATOR, bus).request(request, RunsReply)

    return asyncio.run(send())


def _line(run: AgentRunState) -> str:
    state = f"{run.state} ({run.code})" if run.code else run.state
    return (
        f"{run.run}  {_time(run.started)}  {state}  key {run.key}, {visible(run.model)}: "
        f"{run.turns} turns, {run.calls} calls, {run.tokens} tokens, ${run.cost / MICRO:.6f}"
    )


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"
