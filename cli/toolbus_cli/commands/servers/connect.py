"""Command that connects a stdio client to the HTTP endpoint."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from toolbus_cli.bridge.bridge import Bridge
from toolbus_cli.bridge.http import Endpoint
from toolbus_cli.bridge.stdio import Output, read_lines
from toolbus_cli.commands.options import DEFAULT_STATE, EndpointUrl, KeyFile, KeySecret, StateDir
from toolbus_cli.errors import CommandError
from toolbus_cli.state_dir import endpoint_of


def connect(
    *,
    url: EndpointUrl = "",
    key: KeySecret = "",
    key_file: KeyFile = None,
    server: Annotated[
        str, typer.Option(help="Expose only this server, with tool names without prefix.")
    ] = "",
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Run an MCP server on stdio that forwards to the endpoint.

    The client starts this command. Messages and responses are forwarded unchanged, in every MCP
    revision; diagnostics go to stderr. Pass the key by environment or file: other users can read
    a command's arguments.
    """
    secret = secret_of(key, key_file)
    endpoint = Endpoint(url or endpoint_of(state_dir), server)
    signal.signal(signal.SIGTERM, _leave)
    output = Output(_own_stdout())
    Bridge(endpoint, secret, output.say, _note).serve(
        line for line in read_lines(sys.stdin.buffer) if not output.gone
    )


def secret_of(key: str, key_file: Path | None) -> str:
    """Return a key's secret from a file, or as it was given. Raises `CommandError`."""
    if key_file is not None:
        try:
            key = key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(
                f"The key file {key_file} cannot be read; give another with --key-file."
            ) from error
    if not key:
        raise CommandError("No key: set TOOLBUS_KEY, --key-file or --key.")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise CommandError("The key is invalid: it must be printable ASCII without spaces.")
    return key


def _own_stdout() -> int:
    """Return a descriptor that only the bridge writes to; other output goes to stderr."""
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return own


def _note(message: str) -> None:
    sys.stderr.write(f"toolbus connect: {message}.\n")
    sys.stderr.flush()


def _leave(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)
