"""Commands that drain, resume or reset a server."""

import asyncio
from collections.abc import Callable
from time import monotonic, time
from typing import Annotated, Any

import typer

from toolbus_cli.commands.options import DEFAULT_STATE, AsJson, StateDir
from toolbus_cli.commands.output import say, show_json
from toolbus_cli.commands.repository import at_work
from toolbus_cli.config_client import me
from toolbus_cli.errors import CommandError
from toolbus_common.config_store.repository import ConfigRepository
from toolbus_common.contracts import (
    SERVER_COMMAND_PREFIX,
    ServerCommand,
    ServerCommandEvent,
    ServerDrained,
    ServerReset,
    ServersQuery,
    ServersReply,
    ServerUndrained,
)
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.errors import UnavailableError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CONFIG

ATTEMPTS = 5  # on a conflict with another writer
CONFIRM_SECONDS = 5.0

Name = Annotated[str, typer.Argument(metavar="SERVER", help="A configured server.")]
Row = dict[str, Any]


def drain(name: Name, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Stop new calls to a server; running calls finish. 'toolbus servers undrain' resumes calls."""
    row = at_work(state_dir, lambda repository: _steer(repository, name, _drained, ServerDrained))
    left = row.get("in_flight", 0)
    under_way = "no call is running" if not left else f"{left} still running"
    _answer(row, f"Drained {name}: no new calls; {under_way}.", as_json=as_json)


def undrain(name: Name, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Resume calls to a drained server."""
    row = at_work(
        state_dir, lambda repository: _steer(repository, name, _undrained, ServerUndrained)
    )
    _answer(row, f"Resumed calls to {name}.", as_json=as_json)


def reset(name: Name, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Reset a server: reconnect or restart it, and close its circuit breaker.

    Running calls of a stdio server fail; drain it first to avoid that.
    """
    row = at_work(state_dir, lambda repository: _steer(repository, name, _reset, ServerReset))
    _answer(row, f"Resetting {name}; 'toolbus status' shows its state.", as_json=as_json)


def _drained(now: ServerCommand) -> dict[str, Any]:
    return {"drained": True, "resets": now.resets}


def _undrained(now: ServerCommand) -> dict[str, Any]:
    return {"drained": False, "resets": now.resets}


def _reset(now: ServerCommand) -> dict[str, Any]:
    return {"drained": now.drained, "resets": now.resets + 1}


async def _steer(
    repository: ConfigRepository,
    name: str,
    change: Callable[[ServerCommand], dict[str, Any]],
    event: type[ServerCommandEvent],
) -> Row:
    """Store and record a command, wait for an executor, and return the server's row.

    The row is empty if no executor is running.
    """
    if name not in (await repository.declared()).configuration.servers:
        raise CommandError(f"Unknown server '{name}'; 'toolbus get servers' lists them.")
    result = await _written(repository, name, change)
    number = f"{name}.{event.NAME.rpartition('.')[2]}.{result.at:.6f}"
    repository.record(
        event(id=number, at=result.at, customer=DEFAULT_CUSTOMER, server=name, by=me())
    )
    return await _confirmed(repository, name, result)


async def _written(
    repository: ConfigRepository, name: str, change: Callable[[ServerCommand], dict[str, Any]]
) -> ServerCommand:
    bucket = await repository.bus.bucket(CONFIG)
    for _ in range(ATTEMPTS):
        entry = await bucket.get(f"{SERVER_COMMAND_PREFIX}{name}")
        now = (
            ServerCommand.decode(entry.value)
            if entry is not None and entry.value
            else ServerCommand()
        )
        result = ServerCommand(**change(now), by=me(), at=time())
        last = entry.revision if entry is not None else 0
        if await bucket.swap(f"{SERVER_COMMAND_PREFIX}{name}", result.encode(), last) is not None:
            return result
    raise CommandError(
        f"The state of '{name}' could not be changed because other operators change it too; "
        "check 'toolbus status' and retry."
    )


async def _confirmed(repository: ConfigRepository, name: str, reply: ServerCommand) -> Row:
    """Wait until an executor has applied the command; return the server's row in its reply.

    The row is empty if no executor is running. After `CONFIRM_SECONDS`, the last row is returned.
    """
    queries, give_up = RequestReply(OPERATOR, repository.bus), monotonic() + CONFIRM_SECONDS
    row: Row = {}
    while monotonic() < give_up:
        try:
            rows = (await queries.request(ServersQuery(), ServersReply)).servers
        except UnavailableError:
            return {}  # no executor is running: the next one reads the command when it starts
        row = next((each for each in rows if each["name"] == name), {})
        if (row.get("drained"), row.get("resets")) == (reply.drained, reply.resets):
            return row
        await asyncio.sleep(0.05)
    return row


def _answer(row: Row, message: str, *, as_json: bool) -> None:
    if as_json:
        show_json(row)
    elif row:
        say(message)
    else:
        say("No executor is running; the command is stored and is applied when one starts.")
