"""The process of one Python plugin: `python -m toolbus_common.plugins.python.process`.

Its standard input is the connection to the bus, which executor has opened, so that the process
needs no network. Its environment has the other settings, as JSON.
"""

import asyncio
import importlib
import inspect
import os
import socket
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import ParseResult

import msgspec
import pluggy
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport

from toolbus_common.plugins.python.api import GROUP, PROJECT, Answer, Call, Points

VARIABLE = "TOOLBUS_PLUGIN"  # the settings of the process
LARGEST_LINE = 1 << 20
_LONGEST_REASON = 1000


class Settings(Struct):
    """What the process needs to know.

    `plugin` is an entry point of the group `toolbus.plugins`, or a module. `subjects` are those of
    its hooks.
    """

    name: str
    plugin: str
    subjects: list[str]
    seed: str = ""
    settings: dict[str, Any] = {}


class Plugin:
    """A loaded plugin, and its answers to requests."""

    def __init__(self, settings: Settings) -> None:
        """Load the plugin. Raises `ImportError` or `ValueError`."""
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Points)
        loaded, self.version = _loaded(settings.plugin)
        self._manager.register(loaded)
        self._manager.check_pending()
        self._settings = settings.settings
        self._hooks: dict[str, Callable[..., Any]] = {
            name: getattr(self._manager.hook, name)
            for name in vars(Points)
            if not name.startswith("_")
        }
        for subject in settings.subjects:
            point = subject.split(".")[2]
            if not self._hooks[point].get_hookimpls():  # type: ignore[attr-defined]
                raise ValueError(f"it has no hook '{point}'; add one, or remove it from 'hooks'")
        self._decode = msgspec.json.Decoder(Call).decode
        self._encode = msgspec.json.Encoder().encode

    async def answer(self, data: bytes) -> bytes:
        """Return the answer to one request."""
        try:
            call = self._decode(data)
            found = self._hooks[call.point](call=call, settings=self._settings)
            if inspect.isawaitable(found):
                found = await found
            answer = found or Answer()
            return self._encode(
                {
                    "verdict": answer.verdict,
                    "content": answer.content,
                    "reason": answer.reason[:_LONGEST_REASON],
                    "version": self.version,
                }
            )
        except Exception as error:  # noqa: BLE001 - the fault of one request must not end the others
            # The text of the error can contain the content, so only its type leaves the process.
            reason = f"an error of the type {type(error).__name__}"
            return self._encode({"verdict": "fail", "reason": reason, "version": self.version})


def _loaded(name: str) -> tuple[Any, str]:
    """Return the object of an entry point, else a module, and its version."""
    for entry in entry_points(group=GROUP, name=name):
        version = entry.dist.version if entry.dist is not None else ""
        return entry.load(), version[:64]
    module = importlib.import_module(name)
    return module, str(getattr(module, "__version__", ""))[:64]


class _Inherited(TcpTransport):
    """The connection that executor has opened."""

    def __bool__(self) -> bool:
        """Return true, so that the client does not make a transport of its own."""
        return True

    async def connect(
        self,
        uri: ParseResult,  # noqa: ARG002 - executor has chosen the server
        buffer_size: int,
        connect_timeout: int,  # noqa: ARG002
    ) -> None:
        """Use the socket that is the standard input."""
        opened = socket.socket(fileno=os.dup(0))
        opened.setblocking(False)  # noqa: FBT003 - of the library
        reader, writer = await asyncio.open_connection(sock=opened, limit=buffer_size)
        self._bare_io_reader = self._io_reader = reader
        self._bare_io_writer = self._io_writer = writer


async def serve(settings: Settings, plugin: Plugin, client: Client, **options: Any) -> None:
    """Answer requests until the connection is lost."""
    lost = asyncio.Event()
    tasks = set[asyncio.Task[None]]()

    async def note_loss() -> None:
        lost.set()

    async def respond(message: Msg) -> None:
        await message.respond(await plugin.answer(message.data))

    async def receive(message: Msg) -> None:
        task = asyncio.ensure_future(respond(message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await client.connect(
        nkeys_seed_str=settings.seed or None,
        allow_reconnect=False,
        max_reconnect_attempts=1,
        disconnected_cb=note_loss,
        closed_cb=note_loss,
        **options,
    )
    for subject in settings.subjects:
        await client.subscribe(subject, settings.name, cb=receive)
    await client.flush()
    await lost.wait()


def main() -> None:
    """Run the plugin of the environment."""
    settings = msgspec.json.decode(os.environ.pop(VARIABLE), type=Settings)
    sys.path.insert(0, "")
    try:
        plugin = Plugin(settings)
    except Exception as error:  # noqa: BLE001 - of the plugin
        sys.exit(f"The plugin '{settings.plugin}' cannot be loaded: {error}")
    client = Client()
    client._transport = _Inherited()  # type: ignore[no-untyped-call]  # noqa: SLF001
    asyncio.run(serve(settings, plugin, client, servers="nats://inherited:4222"))


if __name__ == "__main__":
    main()
