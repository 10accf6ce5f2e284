"""Run the ledger's scripts by digest, pipelined on one connection that is opened when needed.

The client's own script API is more expensive than the scripts: each run creates a task, locks the
pool and updates metrics. Only a cluster is used through it, because it follows the hash slots.
"""

import asyncio
import logging
from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.asyncio import Connection, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    NoScriptError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import TimeoutError as LateError

from toolbus_common.concurrency import end
from toolbus_policy.ledger.redis_url import close_pool, pool_of
from toolbus_policy.ledger.script_connection import Command, ScriptConnection

log = logging.getLogger(__name__)

# The scripts, each with the parts before it.
PARTS = {
    "reserve": ("shared", "limits"),
    "preview": ("shared", "limits"),
    "extend": ("shared",),
    "settle": ("shared",),
    "due": ("shared",),
    "open": (),
}
MARKED = "reserve"  # a script whose last argument says that it is sent again
AGAIN = "again"
# Errors after which a script may have been run without a reply, or a failover is going on.
LOST = (BrokenError, LateError, ClusterDownError, RedisClusterException, OSError)


class ScriptRunner:
    """Runs scripts.

    A script is sent again, once, if the connection breaks before its reply. Both copies may arrive,
    in any order and at any time: the first copy even after the call has ended. All scripts are
    idempotent; `reserve` stores the ids of the calls in a script that is sent again.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._seconds = seconds
        self._pool = pool_of(
            url,
            protocol=2,  # RESP3 has messages that no command requested
            socket_timeout=None,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
        )
        sources, self._digests = _scripts()
        self._sources = {self._digests[name]: source for name, source in sources.items()}
        self._connection: ScriptConnection | None = None
        self._waiting: list[Command] = []  # for the connection that is being opened
        self._opening: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> asyncio.Future[Any]:
        """Send one script.

        The future ends within `seconds`: with the reply, the client's errors or `TimeoutError`.
        """
        loop = self._loop
        if loop is None:  # cached: on 3.11 each look-up is a system call
            loop = self._loop = asyncio.get_running_loop()
        command = Command(
            ("EVALSHA", self._digests[name], len(keys), *keys, *arguments),
            loop.create_future(),
            loop.time() + self._seconds,
        )
        self._send(command)
        return command.reply

    async def close(self) -> None:
        """Close the connection. Scripts in progress, and later ones, end with `ConnectionError`."""
        self._closed = True
        if self._opening is not None:
            await end(self._opening)
        unanswered = self._waiting
        if self._connection is not None:
            unanswered = [*unanswered, *self._connection.close()]
            self._connection = None
        self._fail(unanswered, _closed_error())
        await close_pool(self._pool)

    def _send(self, command: Command) -> None:
        if self._connection is not None:
            self._connection.send(command)
            return
        if self._closed:
            self._fail([command], _closed_error())
            return
        self._waiting.append(command)
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        """Open the connection and send the waiting commands."""
        while self._waiting:
            connection = ScriptConnection(self._sources, self._lost)
            try:
                client: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
                async with asyncio.timeout_at(self._waiting[0].due):
                    await connection.open(client)
            except TimeoutError as error:
                now = asyncio.get_running_loop().time()
                self._fail([each for each in self._waiting if each.due <= now], error)
            except (RedisError, OSError) as error:
                self._fail(self._waiting, error)
            except Exception as error:
                log.exception("ledger.connection_failed")
                self._fail(self._waiting, BrokenError(str(error)))
            else:
                waiting, self._waiting = self._waiting, []
                self._connection = connection
                for command in waiting:
                    if not command.reply.done():  # cancelled
                        connection.send(command)

    def _lost(self, connection: ScriptConnection, unanswered: list[Command]) -> None:
        """Send unanswered commands again, once: the server may have restarted."""
        if self._connection is connection:
            self._connection = None
        now = asyncio.get_running_loop().time()
        for command in unanswered:
            if command.reply.done():  # cancelled
                continue
            if command.due <= now:
                self._fail([command], TimeoutError())
            elif command.resent:
                self._fail([command], BrokenError("The connection was lost."))
            else:
                command.resent = True
                if command.arguments[1] == self._digests[MARKED]:
                    command.arguments = (*command.arguments, AGAIN)
                self._send(command)

    def _fail(self, commands: list[Command], error: Exception) -> None:
        for command in commands:
            if not command.reply.done():
                command.reply.set_exception(error)
        self._waiting = [each for each in self._waiting if not each.reply.done()]


class ClusterScriptRunner:
    """Runs scripts in a cluster, each at the primary of its keys.

    A script is sent again, once, as by `ScriptRunner`. A primary without the script receives its
    source.
    """

    def __init__(self, cluster: RedisCluster, seconds: float) -> None:
        self._cluster = cluster
        self._seconds = seconds
        self._sources, self._digests = _scripts()

    def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> asyncio.Future[Any]:
        """Send one script.

        The future ends within `seconds`: with the reply, the client's errors or `TimeoutError`.
        """
        return asyncio.ensure_future(self._run(name, (len(keys), *keys, *arguments)))

    async def close(self) -> None:
        """Do nothing, because the connections belong to the client, which closes them."""

    async def _run(self, name: str, words: tuple[Any, ...]) -> Any:
        async with asyncio.timeout(self._seconds):
            try:
                return await self._once(name, words)
            except LOST:
                again = (AGAIN,) if name == MARKED else ()
                return await self._once(name, (*words, *again))

    async def _once(self, name: str, words: tuple[Any, ...]) -> Any:
        try:
            return await self._cluster.execute_command("EVALSHA", self._digests[name], *words)
        except NoScriptError:
            return await self._cluster.execute_command("EVAL", self._sources[name], *words)


def _scripts() -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the sources of the scripts, and their digests."""
    sources = {name: _source(name) for name in PARTS}
    digests = {
        name: sha1(source, usedforsecurity=False).hexdigest() for name, source in sources.items()
    }
    return sources, digests


def _closed_error() -> BrokenError:
    return BrokenError("The connection to Redis was closed.")


def _source(name: str) -> bytes:
    folder = files(__package__) / "lua"
    return b"".join((folder / f"{part}.lua").read_bytes() for part in (*PARTS[name], name))
