"""Operations of an operator on the bus: apply a configuration, revoke a key, query audit."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from harness.clients.mcp_client import Client
from harness.engines.engine import BEGIN_SECONDS
from harness.waits import PATIENCE, until_blocking
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.config import Configuration, Key
from toolbus_common.config_store.operator_targets import NAMED, digests_of, encoded
from toolbus_common.contracts import (
    AuditQuery,
    RowsReply,
    ServersQuery,
    ServersReply,
    ServiceStatus,
    SessionsQuery,
    SessionsReply,
)
from toolbus_common.errors import ToolbusError, UnavailableError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CATALOGUE, CONFIG, CONFIGURATION, KEY_PREFIX
from toolbus_common.status.sessions import with_sessions

ANSWER_SECONDS = 20.0  # timeout of a query, because audit can be slow on a busy machine

R = TypeVar("R")
Row = dict[str, Any]


def key(secret: str, *tools: str, **fields: Any) -> Key:
    """Return a declared key."""
    return Key.model_validate(
        {"secret_hash": hash_of(key_digest_of(secret)), "tools": tools or ("*",), **fields}
    )


class BusOperator:
    """An operator on the bus of `state_dir`, where `services` services are running."""

    state_dir: Path
    nats_url: str

    @property
    def services(self) -> int:
        """The number of running services. Each replica is counted."""
        raise NotImplementedError

    def declare(self, configuration: Configuration) -> None:
        """Apply a complete configuration, and approve its addresses."""
        self.write(NAMED, encoded(set(digests_of(configuration))))
        self.write(CONFIGURATION, configuration.model_dump_json().encode())

    def put_key(self, name: str, made: Key) -> None:
        """Create, change or revoke one key."""
        self.write(f"{KEY_PREFIX}{name}", made.model_dump_json().encode())

    def write(self, entry: str, value: bytes) -> None:
        """Write an entry of the configuration."""

        async def put(bus: Bus) -> None:
            await (await bus.bucket(CONFIG)).put(entry, value)

        self.on_the_bus(put)

    def rows(self, sql: str) -> list[Row]:
        """Run a query at audit."""
        return self.on_the_bus(lambda bus: _rows(RequestReply(OPERATOR, bus), sql))

    def eventual_rows(self, sql: str, there: Callable[[list[Row]], Any] = bool) -> list[Row]:
        """Query audit until `there` accepts the rows. The default accepts any row."""
        give_up = time.monotonic() + PATIENCE

        async def look(bus: Bus) -> list[Row]:
            queries = RequestReply(OPERATOR, bus)
            while not there(rows := await _rows(queries, sql)):
                assert time.monotonic() < give_up, f"{sql}: {rows!r}"
                await asyncio.sleep(0.1)
            return rows

        while True:
            try:
                return self.on_the_bus(look)
            except ToolbusError:  # audit or the bus is unavailable
                if time.monotonic() >= give_up:
                    raise
                time.sleep(0.1)

    def eventual_events(self, where: str, *events: str) -> dict[str, Row]:
        """Wait until audit has all these events, and return the rows of `where` by event."""
        rows = self.eventual_rows(
            f"SELECT * FROM events WHERE {where}",
            lambda rows: {row["event"] for row in rows} >= set(events),
        )
        return {row["event"]: row for row in rows}

    def statuses(self) -> list[ServiceStatus]:
        """Return the status of every replica of every service."""
        return self.on_the_bus(lambda bus: RequestReply(OPERATOR, bus).request_all())

    def up_to_date(self) -> bool:
        """Return whether all replicas have the newest configuration and catalogue."""

        async def look(bus: Bus) -> bool:
            newest = {name: await _newest(bus, name) for name in (CONFIG, CATALOGUE)}
            reply = await RequestReply(OPERATOR, bus).request_all(0.2)
            return len(reply) == self.services and all(
                service.revisions.get(name, revision) >= revision
                for service in reply
                for name, revision in newest.items()
            )

        return self.on_the_bus(look)

    def until_listed(self, client: Client, *tools: str) -> None:
        """Wait until a client lists these tools and all services have them."""
        until_blocking(lambda: client.sees(*tools), f"the tools {tools}", BEGIN_SECONDS)
        until_blocking(self.up_to_date, "every service knows what there is", BEGIN_SECONDS)

    def on_the_bus(self, work: Callable[[Bus], Awaitable[R]]) -> R:
        """Run a coroutine with the operator's connection."""

        async def do() -> R:
            seed = (self.state_dir / "nkeys" / f"{OPERATOR}.seed").read_text().strip()
            bus = Bus(OPERATOR, self.nats_url, seed)
            await bus.open()
            try:
                return await work(bus)
            finally:
                await bus.close()

        return asyncio.run(do())


async def servers_of(bus: Bus) -> tuple[Row, ...]:
    """Return the servers and providers that executors report; empty while none answers."""
    try:
        return (await RequestReply(OPERATOR, bus).request(ServersQuery(), ServersReply)).servers
    except UnavailableError:
        return ()


async def servers_with_sessions(bus: Bus) -> list[dict[str, Any]]:
    """Return the servers in the form of `toolbus status`."""
    requests = RequestReply(OPERATOR, bus)
    servers = list((await requests.request(ServersQuery(), ServersReply)).servers)
    return with_sessions(servers, await requests.request_each(SessionsQuery(), SessionsReply))


async def _newest(bus: Bus, bucket: str) -> int:
    """Return the newest revision of a bucket."""
    info = await bus.client.jetstream(timeout=PATIENCE).stream_info(f"KV_{bucket}")
    return int(info.state.last_seq)


async def _rows(queries: RequestReply, sql: str) -> list[Row]:
    """Run a query at audit. Raises `ToolbusError`."""
    found = await queries.request(AuditQuery(sql=sql), RowsReply, ANSWER_SECONDS)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]
