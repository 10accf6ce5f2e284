"""Commands for who decides: what waits for a person, and yes or no to it."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from toolbus_cli.commands.shared import DEFAULT_STATE, AsJson, StateDir, say, show_json
from toolbus_cli.config_client import me
from toolbus_cli.installation import find, joined
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.contracts import (
    ApprovalsQuery,
    ApprovalsReply,
    ApprovalState,
    ApproveRequest,
    Query,
    RejectRequest,
)
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.web.json_view import readable, visible

Id = Annotated[str, typer.Argument(metavar="ID", help="As 'toolbus approvals' tells it.")]


def approvals(
    approval: Annotated[str, typer.Argument(metavar="[ID]", help="Only this one, in full.")] = "",
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Show the calls that wait for a person, the oldest first."""
    told = _asked(state_dir, ApprovalsQuery(id=approval))
    if as_json:
        show_json(told.model_dump())
        return
    if not told.approvals:
        say("No call waits for a person.")
    for each in told.approvals:
        say(*_lines(each), "")
    if told.more:
        say("There are more; decide these first.")


def approve(
    approval: Id,
    *,
    note: Annotated[str, typer.Option(help="Recorded with the decision.")] = "",
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Let a waiting call through, once: its caller waits for it, or makes the same call again."""
    _asked(state_dir, ApproveRequest(id=approval, by=me(), note=note))
    say(f"Approved {approval}: the call goes through once.")


def reject(
    approval: Id,
    *,
    reason: Annotated[str, typer.Option(help="What the caller is told.")],
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Refuse a waiting call, with a reason its caller can act on."""
    _asked(state_dir, RejectRequest(id=approval, by=me(), note=reason))
    say(f"Rejected {approval}: its caller is told why.")


def _asked(state_dir: Path, question: Query) -> ApprovalsReply:
    async def ask() -> ApprovalsReply:
        async with joined(find(state_dir)) as bus:
            return await RequestReply(OPERATOR, bus).ask(question, ApprovalsReply)

    return asyncio.run(ask())


def _lines(told: ApprovalState) -> list[str]:
    name = visible(full_name(told.server, told.tool))
    age, left = time.time() - told.requested_at, max(0.0, told.ends - time.time())
    lines = [
        f"{told.id}  {told.state}",
        f"  {name} ({told.method}), asked by key {told.key} because of {told.cause}",
        f"  waiting {age:.0f} s, {left:.0f} s left",
    ]
    lines += [f"  {line}" for line in readable(told.arguments).split("\n")]
    if told.cut:
        lines.append(f"  … cut here; see all of it with 'toolbus approvals {told.id}'")
    return lines
