"""Plugins that are Python packages: one isolated process each, with its own user of the bus."""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec

from toolbus_common.concurrency import end
from toolbus_common.config import Server
from toolbus_common.config.plugins import Plugin
from toolbus_common.errors import UpstreamDeadError
from toolbus_common.nats.accounts import plugin_account
from toolbus_common.plugins.python.process import VARIABLE
from toolbus_common.plugins.subjects import subject_of
from toolbus_common.service.reconciler import Reconciler
from toolbus_executor.isolation.child_process import Child
from toolbus_executor.isolation.plan import isolation_of
from toolbus_executor.isolation.standard_error import StandardError
from toolbus_executor.settings import Settings

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before the next start
STEADY_SECONDS = 10.0  # a process that ran this long resets the pause
CONNECT_SECONDS = 5.0
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ")
_COMMAND = (sys.executable, "-P", "-m", "toolbus_common.plugins.python.process")


class PythonPlugins:
    """The processes of the current configuration.

    A changed plugin restarts only its own process.
    """

    def __init__(self, settings: Settings, plugins: Callable[[], Mapping[str, Plugin]]) -> None:
        self._settings = settings
        self._plugins = plugins
        self._running = Reconciler(partial(_Process, settings), _Process.stop)
        self._lock = asyncio.Lock()

    async def reconcile(self) -> None:
        """Start and stop processes according to the configuration."""
        async with self._lock:
            await self._running.reconcile(
                {name: each for name, each in self._plugins().items() if each.python}
            )

    def status(self) -> dict[str, str]:
        """Return the plugins whose process does not run now, and why."""
        return {name: each.why_not for name, each in self._running.items() if each.why_not}

    async def close(self) -> None:
        """Stop all processes."""
        await self._running.close()


class _Process:
    """The process of one plugin, started again when it ends. `why_not` says why it does not run."""

    def __init__(self, settings: Settings, name: str, plugin: Plugin) -> None:
        self.why_not = "its process is starting"
        self._settings = settings
        self._name = name
        self._plugin = plugin
        self._task = asyncio.create_task(self._keep())

    async def stop(self, *, removed: bool) -> None:  # noqa: ARG002 - the reconciler's form
        """End the process."""
        await end(self._task)

    async def _keep(self) -> None:
        pause, loop = FIRST_PAUSE, asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                self.why_not = await self._live()
            except (UpstreamDeadError, OSError) as error:
                reason = error.reason if isinstance(error, UpstreamDeadError) else str(error)
                self.why_not = reason
            except Exception:
                log.exception("plugin.internal_error", extra={"plugin": self._name})
                self.why_not = "an internal error; see the executor log"
            log.warning("plugin.ended", extra={"plugin": self._name, "reason": self.why_not})
            if loop.time() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _live(self) -> str:
        """Run the process once, and return why it ended. Raises `UpstreamDeadError`."""
        declared = Server(
            python=("plugin:plugin",), network="none", limits=self._plugin.limits,
            cwd=self._plugin.cwd,
        )  # fmt: skip
        isolation = isolation_of(declared, self._settings, plugin_account(self._name))
        child = Child(lambda _line: None, errors=StandardError(plugin_account(self._name)))
        environment = self._environment()
        connection = await self._connected()
        try:
            await child.start(
                _COMMAND, environment, declared.cwd or None, isolation, connection.fileno()
            )
            self.why_not = ""
            return await asyncio.shield(child.ended)
        finally:
            _shut(connection)  # the process ends without its connection
            await child.close()

    async def _connected(self) -> socket.socket:
        """Return a new connection to the bus, for the process. Raises `UpstreamDeadError`."""
        if self._settings.nats_tls is not None:
            raise UpstreamDeadError(
                "Toolbus cannot run Python plugins on a bus with TLS; run the plugin as a separate "
                "program"
            )
        failure: Exception | None = None
        for url in self._settings.nats_url.split(","):
            target = urlsplit(url.strip())
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await _connect(target.hostname or "", target.port or 4222)
            except (OSError, TimeoutError) as error:
                failure = error
        raise UpstreamDeadError(f"the bus cannot be reached ({failure})") from failure

    def _environment(self) -> dict[str, str]:
        account = plugin_account(self._name)
        seed_file = self._settings.state_dir / "nkeys" / f"{account}.seed"
        try:
            seed = seed_file.read_text().strip()
        except OSError as error:
            raise UpstreamDeadError(
                f"the key of its NATS user, {seed_file}, cannot be read ({error.strerror}); "
                "'toolbus up' creates it when it starts"
            ) from error
        settings: dict[str, Any] = {
            "name": self._name,
            "plugin": self._plugin.python,
            "subjects": [subject_of(point, self._name) for point in self._plugin.hooks],
            "seed": seed,
            "settings": self._plugin.settings,
        }
        passed = {each: os.environ[each] for each in _PASSED_ON if each in os.environ}
        return passed | {VARIABLE: msgspec.json.encode(settings).decode()}


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)  # noqa: FBT003 - of the library
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # the other end may have closed it
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
