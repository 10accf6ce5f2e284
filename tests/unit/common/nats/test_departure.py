"""Departure from a server: a failed attempt is not the last one."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.errors import TimeoutError as NatsTimeoutError

from harness.waits import until
from toolbus_common.nats.lame_duck import departure
from toolbus_common.nats.lame_duck.departure import Departure
from toolbus_common.nats.lame_duck.movable_client import MovableClient

SERVERS = ("nats://127.0.0.1:1", "nats://127.0.0.1:2")


async def test_a_connection_that_cannot_even_be_closed_does_not_end_the_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(departure, "LOOK_SECONDS", 0.001)
    attempts: list[None] = []

    async def hangs(*_args: Any, **_options: Any) -> Any:
        raise NatsTimeoutError

    async def is_reset(*_args: Any, **_options: Any) -> Any:
        raise ConnectionResetError

    def make() -> MovableClient:
        attempts.append(None)
        return cast("MovableClient", SimpleNamespace(connect=is_reset, close=is_reset))

    client = SimpleNamespace(is_connected=True, request=hangs, connected_url=None)
    leaving = Departure(cast("MovableClient", client), make, SERVERS, {})
    leaving.watch()
    try:
        await until(lambda: len(attempts) > len(SERVERS), "it tries again")
    finally:
        await leaving.close()
