"""The command that explains how a call would be decided, and why."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json, show_table
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import find, joined
from toolbus_cli.remote import contexts
from toolbus_cli.remote.client import request
from toolbus_common.contracts import ExplainQuery, Explanation
from toolbus_common.definitions.visible_text import printable
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR

SECONDS = 20.0
COLUMNS = ("", "step", "level", "result", "text")


def explain(
    key: Annotated[str, typer.Argument(help="The name of the key.")],
    name: Annotated[
        str, typer.Argument(help="A tool (server__tool), an alias of a model, or provider/model.")
    ],
    *,
    arguments: Annotated[
        str, typer.Option("--arguments", help="The arguments of the call, as a JSON object.")
    ] = "{}",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Explain how a call with a key would be decided, and why; nothing is called.

    The steps are those of a real call: grants of each level, quarantine, guards, rules, approval,
    budgets, rates and the state of the server. The step that decides is marked with '>'. The exit
    code is 1 if the call would be denied or would wait for an approval.
    """
    try:
        given: Any = json.loads(arguments)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise CommandError('--arguments must be a JSON object, such as \'{"query": "budget"}\'.')
    if (context := contexts.chosen()) is not None:
        body = json.dumps({"name": name, "arguments": given}).encode()
        path = f"/keys/{quote(key, safe='')}/explain"
        found = request(context, "POST", path, body, Content_Type="application/json")
        explanation = Explanation.model_validate_json(json.dumps(found))
    else:
        query = ExplainQuery(key=key, name=name, arguments=arguments)
        explanation = asyncio.run(_requested(state_dir, query))
    if as_json:
        show_json(explanation.model_dump())
    else:
        _show(explanation)
    raise typer.Exit(0 if explanation.result == "allowed" else 1)


async def _requested(state_dir: Path, query: ExplainQuery) -> Explanation:
    async with joined(find(state_dir)) as bus:
        return await RequestReply(OPERATOR, bus).request(query, Explanation, SECONDS)


def _show(found: Explanation) -> None:
    results = {
        "allowed": "is allowed", "approval": "waits for an approval", "denied": "is denied",
    }  # fmt: skip
    code = f" ({found.code})" if found.code else ""
    say(f"'{found.name}' with the key '{found.key}' {results[found.result]}{code}.")
    if found.reason:
        say(printable(found.reason))
    rows = [
        (">" if each.decides else "", each.step, each.level, each.result, each.text)
        for each in found.steps
    ]
    show_table(COLUMNS, rows, "No step is shown.")
