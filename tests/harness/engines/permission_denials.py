"""One user's connection, and what the NATS server refuses it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client

from harness.engines.nats_server import NatsAt


class Refusals:
    """What the server said to one user, in its own words."""

    def __init__(self) -> None:
        self.words: list[str] = []

    async def note(self, error: Exception) -> None:
        """Take what the server said."""
        self.words.append(str(error))

    def of(self, subject: str) -> bool:
        """Whether one of them is about a subject."""
        return any(f'"{subject.lower()}"' in word.lower() for word in self.words)


@asynccontextmanager
async def joined(server: NatsAt, user: str) -> AsyncIterator[tuple[Client, Refusals]]:
    """Return the user's connection, and what it was refused so far."""
    refusals = Refusals()
    client = await nats.connect(
        server.url,
        nkeys_seed_str=server.seed(user),
        inbox_prefix=f"_INBOX.{user}",
        error_cb=refusals.note,
        max_reconnect_attempts=1,
    )
    try:
        yield client, refusals
    finally:
        await client.close()


async def refused_among(
    server: NatsAt, user: str, subjects: set[str], attempt: Callable[[Client, str], Awaitable[None]]
) -> set[str]:
    """The subjects the server refused: its answers come in order, a flush waits for them."""
    async with joined(server, user) as (client, refusals):
        for subject in sorted(subjects):
            await attempt(client, subject)
        await client.flush()
        await asyncio.sleep(0)
        await client.flush()
        return {subject for subject in subjects if refusals.of(subject)}


async def publish(client: Client, subject: str) -> None:
    """Try to say something."""
    await client.publish(subject, b"{}")


async def subscribe(client: Client, subject: str) -> None:
    """Try to subscribe."""
    await client.subscribe(subject)
