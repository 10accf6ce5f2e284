"""The ledger's scripts, each asked for over a connection it has to itself, without detours.

The client's own way to run one costs more than the script does: a task, the locks of a pool and
reports of how it went, each time.
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
ALONE = ("open",)  # the scripts that need nothing of the shared part


class Scripts:
    """Runs them by their digests. What breaks a connection closes it: no answer meets another."""

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
        """One script, in `seconds` or not at all. Raises what the client does, or `TimeoutError`.

        It may run twice where its connection broke: all of them may.
        """
        command = ("EVALSHA", self._digests[name], len(keys), *keys, *arguments)
        async with asyncio.timeout(self._seconds):
            try:
                return await self._known(name, command)
            except BrokenError:  # the server may have restarted: no other connection is good either
                await self.close()
                return await self._known(name, command)

    async def close(self) -> None:
        """Close what is idle."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect()

    async def _known(self, name: str, command: tuple[Any, ...]) -> Any:
        try:
            return await self._ask(command)
        except NoScriptError:
            await self._ask(("SCRIPT", "LOAD", self._sources[name]))
            return await self._ask(command)

    async def _ask(self, command: tuple[Any, ...]) -> Any:
        connection = self._idle.pop() if self._idle else self._connection()
        try:
            packed = pack_command(command)
            await connection.send_packed_command(packed, check_health=False)
            answer = await connection.read_response()
        except ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._idle.append(connection)
        return answer

    def _connection(self) -> Connection:
        made: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        return made


def _source(name: str) -> bytes:
    folder = files(__package__) / "lua"
    shared = b"" if name in ALONE else (folder / "shared.lua").read_bytes()
    return shared + (folder / f"{name}.lua").read_bytes()
