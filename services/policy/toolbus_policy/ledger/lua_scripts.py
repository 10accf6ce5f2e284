"""Run the ledger's scripts, each on its own connection.

The client's own script API is more expensive than the scripts: each run creates a task, locks the
pool and updates metrics.
"""

import asyncio
from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from hiredis import pack_command
from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import NoScriptError, ResponseError

SCRIPTS = ("reserve", "extend", "settle", "due", "open")
STANDALONE = ("open",)  # scripts without the shared part


class ScriptRunner:
    """Run scripts by digest. An error closes the connection, so replies are never mixed up."""

    def __init__(self, url: str, seconds: float) -> None:
        self._seconds = seconds
        self._pool = ConnectionPool.from_url(
            url, socket_timeout=None, socket_connect_timeout=seconds, retry=Retry(NoBackoff(), 0)
        )
        self._idle: list[Connection] = []
        self._sources = {name: _source(name) for name in SCRIPTS}
        self._digests = {
            name: sha1(source, usedforsecurity=False).hexdigest()
            for name, source in self._sources.items()
        }

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run one script within `seconds`. Raises the client's errors or `TimeoutError`.

        A script may run twice if its connection breaks; all scripts allow that.
        """
        command = ("EVALSHA", self._digests[name], len(keys), *keys, *arguments)
        async with asyncio.timeout(self._seconds):
            try:
                return await self._evaluate(name, command)
            except BrokenError:  # the server may have restarted: all connections are broken
                await self.close()
                return await self._evaluate(name, command)

    async def close(self) -> None:
        """Close idle connections."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect()

    async def _evaluate(self, name: str, command: tuple[Any, ...]) -> Any:
        try:
            return await self._execute(command)
        except NoScriptError:
            await self._execute(("SCRIPT", "LOAD", self._sources[name]))
            return await self._execute(command)

    async def _execute(self, command: tuple[Any, ...]) -> Any:
        connection = self._idle.pop() if self._idle else self._connection()
        try:
            packed = pack_command(command)
            await connection.send_packed_command(packed, check_health=False)
            reply = await connection.read_response()
        except ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._idle.append(connection)
        return reply

    def _connection(self) -> Connection:
        connection: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        return connection


def _source(name: str) -> bytes:
    folder = files(__package__) / "lua"
    shared = b"" if name in STANDALONE else (folder / "shared.lua").read_bytes()
    return shared + (folder / f"{name}.lua").read_bytes()
