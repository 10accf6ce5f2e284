"""The installation that a command works on, and the connection to its bus."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolbus_cli.errors import CommandError
from toolbus_cli.state_dir import State
from toolbus_common.errors import BusDownError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.settings import Settings
from toolbus_common.tls_files import TlsFileError

PATIENCE = 1.5  # seconds to connect; a running bus replies in milliseconds


@dataclass(frozen=True, slots=True)
class Place:
    """An installation: its state directory, the contents of its run file, and its bus."""

    state: State
    nats_url: str
    run: dict[str, Any]


def find(state_dir: Path) -> Place:
    """Return the installation of a state directory. Raises `CommandError` if there is none."""
    state = State(state_dir)
    run = state.running()
    url = os.environ.get("TOOLBUS_NATS_URL") or run.get("nats_url", "")
    if not url:
        raise CommandError(
            f"No Toolbus was started on {state_dir}; start one with 'toolbus up', set "
            "its directory with --state-dir, or set TOOLBUS_NATS_URL."
        )
    return Place(state, str(url), run)


@asynccontextmanager
async def joined(place: Place, patience: float = PATIENCE) -> AsyncIterator[Bus]:
    """Connect to the bus as the operator. Raises `CommandError` if the bus does not reply."""
    bus = operator_bus(place.state, place.nats_url)
    try:
        await bus.open(patience)
    except BusDownError as error:
        raise CommandError(
            f"{error.reason}; start it with 'toolbus up', or check TOOLBUS_NATS_URL."
        ) from error
    try:
        yield bus
    finally:
        await bus.close()


def operator_bus(state: State, url: str) -> Bus:
    """Return an unopened connection of the operator. Raises `CommandError`."""
    settings = Settings(state_dir=state.root, nkey_seed_file="", nats_url=url)
    seed = settings.seed(OPERATOR)
    try:
        return Bus(OPERATOR, url, seed.get_secret_value() if seed else None, settings.nats_tls)
    except TlsFileError as error:
        raise CommandError(str(error)) from error
