"""Connection of one NATS user, and the permission errors that it receives."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client

from harness.engines.nats_server import NatsAt


class Denials:
    """The error messages that the server sent to one user."""

    def __init__(self) -> None:
        self.words: list[str] = []

    async def note(self, error: Exception) -> None:
        """Record an error of the connection."""
        self.words.append(str(error))

    def of(self, subject: str) -> bool:
        """Return whether an error concerns a subject."""
        return any(f'"{subject.lower()}"' in word.lower() for word in self.words)


@asynccontextmanager
async def joined(server: NatsAt, user: str) -> AsyncIterator[tuple[Client, Denials]]:
    """Connect as a user. Return the client and the permission errors that it receives."""
    refusals = Denials()
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


async def denied_among(
    server: NatsAt, user: str, subjects: set[str], attempt: Callable[[Client, str], Awaitable[None]]
) -> set[str]:
    """Return the subjects that the server denied.

    The server replies in order, so a flush waits for all errors.
    """
    async with joined(server, user) as (client, refusals):
        for subject in sorted(subjects):
            await attempt(client, subject)
        await client.flush()
        await asyncio.sleep(0)
        await client.flush()
        return {subject for subject in subjects if refusals.of(subject)}


async def publish(client: Client, subject: str) -> None:
    """Publish an empty message."""
    await client.publish(subject, b"{}")


async def subscribe(client: Client, subject: str) -> None:
    """Subscribe to a subject."""
    await client.subscribe(subject)
