"""Commands about single servers: no new calls for one, calls again, or meet it anew."""

import asyncio
from collections.abc import Callable
from time import monotonic, time
from typing import Annotated, Any

import typer

from toolbus_cli.commands.shared import (
    DEFAULT_STATE,
    AsJson,
    StateDir,
    at_work,
    say,
    show_json,
)
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

ATTEMPTS = 5  # at writing, where others write too
HEARD_SECONDS = 5.0

Name = Annotated[str, typer.Argument(metavar="SERVER", help="A declared server.")]
Row = dict[str, Any]


def drain(name: Name, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Give a server no new calls; those under way end. It stays so until 'undrain'."""
    row = at_work(state_dir, lambda desk: _steer(desk, name, _drained, ServerDrained))
    left = row.get("in_flight", 0)
    under_way = "no call is under way" if not left else f"{left} still under way"
    _answer(row, f"{name} is given no new calls; {under_way}.", as_json=as_json)


def undrain(name: Name, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Give a drained server calls again."""
    row = at_work(state_dir, lambda desk: _steer(desk, name, _undrained, ServerUndrained))
    _answer(row, f"{name} is given calls again.", as_json=as_json)


def reset(name: Name, *, state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Meet a server anew: another connection or process, a closed breaker, no history.

    Calls under way of a stdio server fail by that; drain it first where they must not.
    """
    row = at_work(state_dir, lambda desk: _steer(desk, name, _reset, ServerReset))
    _answer(row, f"{name} is met anew; 'toolbus status' shows how that goes.", as_json=as_json)


def _drained(now: ServerCommand) -> dict[str, Any]:
    return {"drained": True, "resets": now.resets}


def _undrained(now: ServerCommand) -> dict[str, Any]:
    return {"drained": False, "resets": now.resets}


def _reset(now: ServerCommand) -> dict[str, Any]:
    return {"drained": now.drained, "resets": now.resets + 1}


async def _steer(
    desk: ConfigRepository,
    name: str,
    change: Callable[[ServerCommand], dict[str, Any]],
    event: type[ServerCommandEvent],
) -> Row:
    """Write it, say so, and wait until an executor has heard it; the server's row."""
    if name not in (await desk.declared()).declaration.servers:
        raise CommandError(f"No server '{name}' is declared; 'toolbus get servers' shows them.")
    told = await _written(desk, name, change)
    number = f"{name}.{event.NAME.rpartition('.')[2]}.{told.at:.6f}"
    desk.record(event(id=number, at=told.at, customer=DEFAULT_CUSTOMER, server=name, by=me()))
    return await _heard(desk, name, told)


async def _written(
    desk: ConfigRepository, name: str, change: Callable[[ServerCommand], dict[str, Any]]
) -> ServerCommand:
    bucket = await desk.bus.bucket(CONFIG)
    for _ in range(ATTEMPTS):
        entry = await bucket.get(f"{SERVER_COMMAND_PREFIX}{name}")
        now = (
            ServerCommand.decode(entry.value)
            if entry is not None and entry.value
            else ServerCommand()
        )
        told = ServerCommand(**change(now), by=me(), at=time())
        last = entry.revision if entry is not None else 0
        if await bucket.swap(f"{SERVER_COMMAND_PREFIX}{name}", told.encode(), last) is not None:
            return told
    raise CommandError(f"Others steer {name} all the time; see 'toolbus status', then try again.")


async def _heard(desk: ConfigRepository, name: str, told: ServerCommand) -> Row:
    """Every executor hears it from the bucket; the one that answers first tells how it is."""
    lane, give_up = RequestReply(OPERATOR, desk.bus), monotonic() + HEARD_SECONDS
    row: Row = {}
    while monotonic() < give_up:
        try:
            rows = (await lane.ask(ServersQuery(), ServersReply)).servers
        except UnavailableError:
            return {}  # no executor runs: the next one hears it when it starts
        row = next((each for each in rows if each["name"] == name), {})
        if (row.get("drained"), row.get("resets")) == (told.drained, told.resets):
            return row
        await asyncio.sleep(0.05)
    return row


def _answer(row: Row, sentence: str, *, as_json: bool) -> None:
    if as_json:
        show_json(row)
    elif row:
        say(sentence)
    else:
        say("It is written down; no executor runs that could hear it now.")
