"""Programs that connect to the bus as a plugin, as users write them: with the NATS client only."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, get_args

from nats.aio.client import Client
from nats.aio.msg import Msg

from toolbus_common.config.plugins import Point
from toolbus_common.nats.accounts import plugin_account

Answer = Callable[[dict[str, Any]], Any]  # to one request; bytes are sent as they are, None is none


class PluginProgram:
    """A connected plugin, and the requests that it has received."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.client = Client()
        self.replies: list[str] = []  # where the answers went
        self.requests: list[dict[str, Any]] = []
        self.rejected: list[str] = []  # what the server did not permit

    @property
    def points(self) -> list[str]:
        """The points at which the plugin was asked."""
        return [each["point"] for each in self.requests]

    async def receive(self, message: Msg) -> None:
        """Answer one request."""
        request = json.loads(message.data)
        self.requests.append(request)
        self.replies.append(message.reply)
        answer = self.answer(request)
        if answer is not None:
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            await message.respond(raw)

    async def note(self, error: Exception) -> None:
        """Note an error that the server reports."""
        await asyncio.sleep(0)
        self.rejected.append(str(error))


@asynccontextmanager
async def plugin_program(
    url: str, seed: str | None, answer: Answer, name: str = "probe"
) -> AsyncIterator[PluginProgram]:
    """Run a plugin in this process, at all points."""
    program = PluginProgram(answer)
    client = program.client
    await client.connect(url, nkeys_seed_str=seed, error_cb=program.note)
    try:
        for point in get_args(Point):
            await client.subscribe(f"tb.hook.{point}.{name}", cb=program.receive)
        await client.flush()
        yield program
    finally:
        await client.close()


def seed_of(name: str) -> str:
    """Return the name of the seed of a plugin."""
    return plugin_account(name)
