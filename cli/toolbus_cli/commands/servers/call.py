"""Command that calls a tool as an agent does."""

import json
import sys
from typing import Annotated, Any

import typer

from toolbus_cli import mcp_client
from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, KeySecret, StateDir
from toolbus_cli.commands.output import say, show_json
from toolbus_cli.errors import CommandError
from toolbus_cli.state_dir import endpoint_of
from toolbus_common.definitions.visible_text import visible

SECONDS = 120.0


def call(
    tool: Annotated[str, typer.Argument(help="The tool's full name, server__tool.")],
    arguments: Annotated[
        str, typer.Argument(help="A JSON object, or - to read it from standard input.")
    ] = "{}",
    *,
    key: KeySecret = "",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print the tool's text unchanged, even on a terminal.")
    ] = False,
) -> None:
    """Call a tool over HTTP; the call is authorized, charged and recorded.

    On a terminal, invisible and control characters of a text are shown by name.
    """
    if not key:
        raise CommandError("A key is required; give its secret with --key or TOOLBUS_KEY.")
    params = {"name": tool, "arguments": _object(arguments)}
    result = mcp_client.request(endpoint_of(state_dir), key, "tools/call", params, SECONDS)
    if as_json:
        show_json(result)
    else:
        texts = [_shown(part) for part in result.get("content", [])]
        say(*(texts if raw or not sys.stdout.isatty() else map(_on_a_terminal, texts)))
    raise typer.Exit(1 if result.get("isError") else 0)


def _object(text: str) -> dict[str, Any]:
    try:
        data = json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise CommandError(f"The arguments are not JSON: {error}. Correct them.") from error
    if not isinstance(data, dict):
        raise CommandError('The arguments must be a JSON object, such as \'{"text": "hello"}\'.')
    return data


def _on_a_terminal(text: str) -> str:
    """Return the text line by line, with names in place of invisible characters."""
    return "\n".join(map(visible, text.split("\n")))


def _shown(part: dict[str, Any]) -> str:
    return str(part["text"]) if part.get("type") == "text" else json.dumps(part)
