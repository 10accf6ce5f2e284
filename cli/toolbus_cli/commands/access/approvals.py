"""Commands that list and decide pending approvals."""

import asyncio
import json
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json
from toolbus_cli.config_client import me
from toolbus_cli.installation import find, joined
from toolbus_cli.remote import contexts
from toolbus_cli.remote.client import request
from toolbus_cli.remote.contexts import Context
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

Id = Annotated[
    str, typer.Argument(metavar="ID", help="The approval's id, from 'toolbus approvals'.")
]


def approvals(
    approval: Annotated[
        str, typer.Argument(metavar="[ID]", help="Show only this approval, with all its arguments.")
    ] = "",
    *,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """List calls that wait for an approval, oldest first."""
    if (context := contexts.chosen()) is not None:
        result = _in_context(context, approval)
    else:
        result = _request(state_dir, ApprovalsQuery(id=approval))
    if as_json:
        show_json(result.model_dump())
        return
    if not result.approvals:
        say("No call is waiting for an approval.")
    for each in result.approvals:
        say(*_lines(each), "")
    if result.more:
        say("More approvals are pending; decide these first.")


def approve(
    approval: Id,
    *,
    note: Annotated[str, typer.Option(help="A note that is recorded with the decision.")] = "",
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Approve a waiting call once.

    The call continues if its caller still waits. Otherwise, the caller has to repeat it.
    """
    if (context := contexts.chosen()) is not None:
        _decide(context, approval, "approve", note)
    else:
        _request(state_dir, ApproveRequest(id=approval, by=me(), note=note))
    say(f"Approved {approval}: the call is allowed once.")


def reject(
    approval: Id,
    *,
    reason: Annotated[str, typer.Option(help="The reason that is returned to the caller.")],
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Reject a waiting call, with a reason the caller can act on."""
    if (context := contexts.chosen()) is not None:
        _decide(context, approval, "reject", reason)
    else:
        _request(state_dir, RejectRequest(id=approval, by=me(), note=reason))
    say(f"Rejected {approval}: the caller receives the reason.")


def _request(state_dir: Path, question: Query) -> ApprovalsReply:
    async def send() -> ApprovalsReply:
        async with joined(find(state_dir)) as bus:
            return await RequestReply(OPERATOR, bus).request(question, ApprovalsReply)

    return asyncio.run(send())


def _in_context(context: Context, approval: str) -> ApprovalsReply:
    """Return one pending approval or all, from the gateway of a context."""
    if not approval:
        return ApprovalsReply.model_validate(request(context, "GET", "/approvals"))
    one = request(context, "GET", f"/approvals/{quote(approval, safe='')}")
    return ApprovalsReply(approvals=(ApprovalState.model_validate(one),))


def _decide(context: Context, approval: str, decision: str, note: str) -> None:
    path, body = f"/approvals/{quote(approval, safe='')}/{decision}", json.dumps({"note": note})
    request(context, "POST", path, body.encode(), Content_Type="application/json")


def _lines(reply: ApprovalState) -> list[str]:
    name = visible(full_name(reply.server, reply.tool))
    age, left = time.time() - reply.requested_at, max(0.0, reply.ends - time.time())
    lines = [
        f"{reply.id}  {reply.state}",
        f"  {name} ({reply.method}), called with key {reply.key}",
        f"  approval required by {reply.cause}",
        f"  waiting {age:.0f} s, {left:.0f} s left",
    ]
    lines += [f"  {line}" for line in readable(reply.arguments).split("\n")]
    if reply.cut:
        lines.append(f"  … truncated; see all of it with 'toolbus approvals {reply.id}'")
    return lines
