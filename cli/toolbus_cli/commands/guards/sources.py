"""The guards that a command uses: those of a file, or those of an installation."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Annotated, Any

import typer

from toolbus_cli.clients.guard_samples import Laboratory, offline
from toolbus_cli.commands.repository import with_repository
from toolbus_cli.config_file import load_file
from toolbus_cli.errors import CommandError
from toolbus_cli.state_dir import State
from toolbus_common.config import Configuration, Guard
from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.contracts.guards import CheckedCall, ServiceVerdict
from toolbus_common.contracts.queries.base import GuardQuery
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.permissions import OPERATOR

SECONDS = 20.0  # longer than audit's query timeout
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "-c", "--config", help="Use the guards of this file instead of the installation's."
    ),
]
Since = Annotated[str, typer.Option(help="Since when: 30m, 24h, 7d, 2026-11-01.")]


@asynccontextmanager
async def laboratory(config: Path | None, state_dir: Path) -> AsyncIterator[Laboratory]:
    """Yield the guards of a file or of the installation.

    Guards that ask a service ask it through the installation, if one runs and has the guard.
    """
    proposed = declared_in(config) if config else None
    if not _runs(state_dir):
        if proposed is None:
            raise CommandError(
                "No Toolbus runs here; give a file with guards (-c toolbus.yaml), or start one "
                "with 'toolbus up'."
            )
        yield Laboratory(proposed.guards)
        return
    async with with_repository(state_dir) as repository:
        stored = (await repository.declared()).configuration
        guards = (proposed or stored).guards
        ask = asking(RequestReply(OPERATOR, repository.bus), stored.guards, guards)
        yield Laboratory(guards, ask)


def asking(queries: RequestReply, stored: Mapping[str, Guard], wanted: Mapping[str, Guard]) -> Any:
    """Return a function that asks the services of stored guards, and no service of other guards."""

    async def ask(guard: str, phase: str, call: CheckedCall, content: bytes) -> ServiceVerdict:
        if stored.get(guard) is None or _service(stored[guard]) != _service(wanted[guard]):
            return await offline(guard, phase, call, content)
        query = GuardQuery(guard=guard, phase=phase, call=call, content=content)
        return await queries.request(query, ServiceVerdict, max(call.deadline - time(), 1.0))

    return ask


def _service(guard: Guard) -> tuple[Any, ...]:
    return guard.kind, guard.url, guard.server, guard.tool, guard.options


def declared_in(path: Path) -> Configuration:
    """Load a configuration file. Raises `CommandError` with all its errors."""
    return load_file(path, os.environ).configuration


def _runs(state_dir: Path) -> bool:
    return State(state_dir).alive() or "TOOLBUS_NATS_URL" in os.environ


async def rows_of(
    queries: RequestReply, sql: str, limit: int = 10_000, **parameters: str
) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows of a statement, and whether there are more."""
    request = AuditQuery(sql=sql, limit=limit, parameters=parameters)
    found = await queries.request(request, RowsReply, SECONDS)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows], found.more
