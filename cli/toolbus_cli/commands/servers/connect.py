"""The command that lets a client on stdio use an endpoint over HTTP."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from toolbus_cli.bridge.bridge import Bridge
from toolbus_cli.bridge.http import Endpoint
from toolbus_cli.bridge.stdio import Output, read_lines
from toolbus_cli.commands.shared import DEFAULT_STATE, StateDir
from toolbus_cli.errors import CommandError
from toolbus_cli.installation import endpoint_of


def connect(
    *,
    url: Annotated[
        str,
        typer.Option(envvar="TOOLBUS_URL", help="The endpoint; else what runs in --state-dir."),
    ] = "",
    key: Annotated[str, typer.Option(envvar="TOOLBUS_KEY", help="The key's secret.")] = "",
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="A file that holds the key's secret.")
    ] = None,
    server: Annotated[str, typer.Option(help="Only this server, with its own names.")] = "",
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Be an MCP server on stdio for a client that speaks nothing else.

    The client starts this command itself. Every message goes to the endpoint and every answer
    comes back as it is, whatever revision of MCP the client speaks; messages for people go to
    stderr. Keep the key in the environment or a file: others can read a command's arguments.
    """
    secret = _secret(key, key_file)
    endpoint = Endpoint(url or endpoint_of(state_dir), server)
    signal.signal(signal.SIGTERM, _leave)
    output = Output(_own_stdout())
    Bridge(endpoint, secret, output.say, _note).serve(
        line for line in read_lines(sys.stdin.buffer) if not output.gone
    )


def _secret(key: str, key_file: Path | None) -> str:
    if key_file is not None:
        try:
            key = key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(
                f"The key file {key_file} cannot be read; name another with --key-file."
            ) from error
    if not key:
        raise CommandError("Name a key's secret with TOOLBUS_KEY, --key-file or --key.")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise CommandError("The key is no key: it may hold printable ASCII without spaces only.")
    return key


def _own_stdout() -> int:
    """A descriptor only the bridge writes to: whatever else prints, prints to stderr."""
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return own


def _note(sentence: str) -> None:
    sys.stderr.write(f"toolbus connect: {sentence}.\n")
    sys.stderr.flush()


def _leave(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)
