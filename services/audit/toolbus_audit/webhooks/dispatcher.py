"""Tells webhooks of events, at least once each, and each webhook at its own pace.

A message of the stream is acknowledged once every webhook that wants one of its events has it, or
is given up; until then the bus keeps it, so a crash loses nothing.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import time
from typing import Any

import msgspec

from toolbus_audit.delivery.http_client import PostError
from toolbus_audit.webhooks.signing import NoSecretError, body_of, headers_of, key_of
from toolbus_common.config import Webhook
from toolbus_common.nats.connection import StoredMessage
from toolbus_common.secrets import SecretError, Secrets, filled

log = logging.getLogger(__name__)

MOST_BEHIND = 1000  # events that one webhook may be behind; then it loses the oldest
MOST_THREADS = 64  # a webhook uses one at a time
GIVE_UP_SECONDS = 24 * 3600.0  # after which an event is news no longer
FIRST_RETRY, SLOWEST_RETRY = 1.0, 300.0

Batches = AsyncIterator[list[StoredMessage]]
Post = Callable[[Webhook, bytes, Mapping[str, str]], None]
Event = dict[str, Any]


@dataclass(eq=False, slots=True)
class Parcel:
    """One message of the stream, and how many deliveries it still waits for."""

    message: StoredMessage
    left: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook."""

    parcel: Parcel
    event: Event


@dataclass(eq=False, slots=True)
class Line:
    """What one webhook is still to be told, in order."""

    waiting: list[Delivery] = field(default_factory=list)
    task: "asyncio.Task[None] | None" = None


class Webhooks:
    """`declared` gives the webhooks as they are now, by name; `secrets` what they sign with."""

    def __init__(
        self,
        declared: Callable[[], Mapping[str, Webhook]],
        send: Post,
        secrets: Secrets,
        first_retry: float = FIRST_RETRY,
        reveal: Callable[[str], str] = str,
    ) -> None:
        self._declared = declared
        self._secrets = secrets
        self._send = send
        self._first_retry = first_retry
        self._reveal = reveal  # what is sealed of people is told to webhooks in the plain
        self._threads = ThreadPoolExecutor(MOST_THREADS, "webhook")
        self._lines: dict[str, Line] = {}
        self._parcels: dict[int, Parcel] = {}  # by their place in the stream

    async def run(self, batches: Batches) -> None:
        """Without end: take what the stream has."""
        async for messages in batches:
            for message in messages:
                await self._take(message)

    async def close(self) -> None:
        """Stop; what was not told comes again at the next start."""
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _take(self, message: StoredMessage) -> None:
        known = self._parcels.get(message.sequence)
        if known is not None:  # it comes again because it takes long: answer to the newest
            known.message = message
            return
        parcel = Parcel(message)
        wanted = [
            (name, Delivery(parcel, event))
            for event in _events(message.data)
            for name, hook in self._declared().items()
            if hook.wants(event["event"], str(event.get("customer", "")))
        ]
        if not wanted:
            await _acknowledge(message.done)
            return
        parcel.left = len(wanted)
        self._parcels[message.sequence] = parcel
        for name, delivery in wanted:
            await self._add(name, delivery)

    async def _add(self, name: str, delivery: Delivery) -> None:
        line = self._lines.setdefault(name, Line())
        if len(line.waiting) >= MOST_BEHIND:
            # The first may be under way: it is the next that goes.
            log.error("webhook.given_up", extra={"webhook": name, "reason": "it is too far behind"})
            await self._ended(line.waiting.pop(1))
        line.waiting.append(delivery)
        if line.task is None or line.task.done():
            line.task = asyncio.get_running_loop().create_task(self._work(name, line))

    async def _work(self, name: str, line: Line) -> None:
        while line.waiting:
            await self._deliver(name, line.waiting[0].event)
            await self._ended(line.waiting.pop(0))

    async def _deliver(self, name: str, event: Event) -> None:
        """Try until it is told, nobody wants it any more, or it is no news."""
        delay = self._first_retry
        while (hook := self._declared().get(name)) is not None:
            try:
                key = key_of(filled(hook.secret, await self._secrets.read([hook.secret])))
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._threads, self._post, hook, key, event)
            except (PostError, NoSecretError, SecretError) as error:
                reason = str(error)
            else:
                return
            if time() > event["at"] + GIVE_UP_SECONDS:
                log.error("webhook.given_up", extra={"webhook": name, "reason": reason})
                return
            log.warning("webhook.failed", extra={"webhook": name, "reason": reason})
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            delay = min(delay * 2, SLOWEST_RETRY)

    def _post(self, hook: Webhook, key: bytes, event: Event) -> None:
        body = self._reveal(body_of(event).decode()).encode()
        self._send(hook, body, headers_of(key, event["id"], int(time()), body))

    async def _ended(self, delivery: Delivery) -> None:
        parcel = delivery.parcel
        parcel.left -= 1
        if not parcel.left:
            self._parcels.pop(parcel.message.sequence, None)
            await _acknowledge(parcel.message.done)


async def _acknowledge(done: Callable[[], Awaitable[None]]) -> None:
    try:
        await done()
    except Exception as error:  # noqa: BLE001 - the bus is away: it sends the message again
        log.info("webhook.not_acknowledged", extra={"reason": str(error)})


def _events(lines: bytes) -> Iterator[Event]:
    for line in lines.split(b"\n"):
        try:
            event = msgspec.json.decode(line)
            if (
                isinstance(event["event"], str)
                and isinstance(event["id"], str)
                and event["at"] >= 0
            ):
                yield event
        except (msgspec.DecodeError, KeyError, TypeError):
            log.error("webhook.unreadable_event")  # noqa: TRY400 - the line itself is not logged
