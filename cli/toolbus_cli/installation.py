"""Where a command finds the installation it is about, and how it joins the bus there."""

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

PATIENCE = 1.5  # seconds to connect: what runs answers in milliseconds


@dataclass(frozen=True, slots=True)
class Place:
    """An installation: its state directory, what runs there, and its bus."""

    state: State
    nats_url: str
    run: dict[str, Any]


def endpoint_of(state_dir: Path) -> str:
    """Where agents connect. Raises `CommandError` when nothing says."""
    told = os.environ.get("TOOLBUS_URL") or State(state_dir).running().get("endpoint", "")
    if not told:
        raise CommandError(
            f"No Toolbus was started on {state_dir}; start one with 'toolbus up', name its "
            "directory with --state-dir, or set TOOLBUS_URL."
        )
    return str(told)


def find(state_dir: Path) -> Place:
    """The installation on a state directory. Raises `CommandError` when none is running."""
    state = State(state_dir)
    run = state.running()
    url = os.environ.get("TOOLBUS_NATS_URL") or run.get("nats_url", "")
    if not url:
        raise CommandError(
            f"No Toolbus was started on {state_dir}; start one with 'toolbus up', name its "
            "directory with --state-dir, or set TOOLBUS_NATS_URL."
        )
    return Place(state, str(url), run)


@asynccontextmanager
async def joined(place: Place, patience: float = PATIENCE) -> AsyncIterator[Bus]:
    """The bus, as the operator. Raises `CommandError` when it does not answer."""
    bus = operator_bus(place.state, place.nats_url)
    try:
        await bus.open(patience)
    except BusDownError as error:
        raise CommandError(f"{error.reason}; is 'toolbus up' running?") from error
    try:
        yield bus
    finally:
        await bus.close()


def operator_bus(state: State, url: str) -> Bus:
    """The operator's connection, not yet open."""
    seed = Settings(state_dir=state.root, nkey_seed_file="").seed(OPERATOR)
    return Bus(OPERATOR, url, seed.get_secret_value() if seed else None)
