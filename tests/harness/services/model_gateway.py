"""Executor with model providers on a real bus, and a policy that admits every request."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from harness.apis.model_provider import ModelProvider
from harness.clients.bus_operator import servers_of
from harness.services.call_runner import admitted
from harness.waits import until, until_async
from toolbus_common.config import Configuration, Provider
from toolbus_common.contracts import (
    CallCancelled,
    CallError,
    CallResult,
    Notification,
    decode_reply,
)
from toolbus_common.contracts.events.base import EVERY_EVENT
from toolbus_common.contracts.model_calls import (
    CACHE,
    CHAT,
    CHUNK,
    CacheNote,
    ModelCall,
    decode_cache_note,
)
from toolbus_common.errors import ToolbusError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_executor.main import build

PRICE = (1.0, 0.5, 1.25, 2.0, 3.0, 7.0)
RESERVED = 1000
OUTCOMES = ("call.completed", "call.failed")


class ModelGateway:
    """An executor with providers, and a policy that publishes admitted calls."""

    def __init__(self, operator: Bus, policy: Bus) -> None:
        self._operator = operator
        self._policy = policy
        self._replies: dict[str, list[Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.guards: dict[str, Any] = {}
        self.plugins: dict[str, Any] = {}

    @asynccontextmanager
    async def executor(self, **providers: Provider) -> AsyncIterator[None]:
        """Run an executor with these providers, which are ready."""
        await self.configure(**providers)
        async with build(ProcessContext()).running():
            await until_async(self.is_ready, "the providers")
            yield

    async def configure(self, **providers: Provider) -> None:
        """Apply a configuration with these providers."""
        config = await self._operator.bucket(CONFIG)
        declared = Configuration(providers=providers, guards=self.guards, plugins=self.plugins)
        await config.put("configuration", declared.model_dump_json().encode())

    async def listen(self, tester: Bus) -> None:
        """Subscribe to the replies of calls, and to events."""
        await self._policy.subscribe("tb.reply.policy.o.*", self._receive)
        await tester.subscribe(EVERY_EVENT, self._receive_events)
        await self._policy.settled()
        await tester.settled()

    async def begin(self, number: str, *, streamed: bool = False, **more: Any) -> None:
        """Publish a request to the model m of the provider p."""
        tool = more.pop("tool", "m")
        body = more.pop("body", {"model": "alias", "messages": [], "stream": streamed})
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {
            "server": "p",
            "call_id": number,
            "reply_to": f"tb.reply.policy.o.{number}",
            "method": CHAT,
            "extra": ModelCall(alias="team", stream=streamed, tools=2).encode(),
            "charge": RESERVED,
            "reserved": True,
            "price": PRICE,
            **more,
        }
        call = admitted(tool, **fields).model_copy(update={"arguments": raw})
        await self._policy.publish(call.subject, call.encode())

    async def cancel(self, number: str) -> None:
        """Cancel a call, as ingress does."""
        cancelled = CallCancelled(call_id=number)
        await self._policy.publish(cancelled.subject, cancelled.encode())

    async def call(self, number: str, *, streamed: bool = False, **more: Any) -> Any:
        """Make a request and return its final reply."""
        await self.begin(number, streamed=streamed, **more)
        return await self.end(number)

    async def end(self, number: str) -> Any:
        """Return the final reply of a call."""
        return await until(lambda: self._final(number), "the call's end")

    async def error(self, number: str, **more: Any) -> ToolbusError:
        """Make a request that fails, and return its error."""
        reply = await self.call(number, **more)
        assert isinstance(reply, CallError), reply
        return reply.error

    def chunks(self, number: str) -> bytes:
        """Return the parts of the stream that the caller has received."""
        received = self._replies.get(number, [])
        sent = [each for each in received if isinstance(each, Notification)]
        assert all(each.method in (CHUNK, CACHE) for each in sent)
        return b"".join(each.body for each in sent if each.method == CHUNK)

    def note(self, number: str) -> CacheNote:
        """Return how the cache was used for a call."""
        (note,) = (
            decode_cache_note(each.body)
            for each in self._replies[number]
            if isinstance(each, Notification) and each.method == CACHE
        )
        return note

    async def event(self, number: str, *names: str) -> dict[str, Any]:
        """Return the only event of a call with one of these names."""

        def found() -> list[dict[str, Any]]:
            return [
                each
                for each in self.events
                if each.get("call_id") == number and each["event"] in names
            ]

        await until(found, f"{names} of {number}")
        (event,) = found()
        return event

    async def outcome(self, number: str) -> dict[str, Any]:
        """Return the only outcome of a call."""
        return await self.event(number, *OUTCOMES)

    async def rows(self) -> tuple[dict[str, Any], ...]:
        """Return the executor's rows of its providers."""
        return await servers_of(self._operator)

    async def is_ready(self) -> bool:
        """Return whether all providers are ready."""
        rows = await self.rows()
        return bool(rows) and all(row["state"] == "ready" for row in rows)

    def _final(self, number: str) -> Any:
        received = self._replies.get(number, [])
        return received[-1] if received and isinstance(received[-1], CallResult | CallError) else 0

    def _receive(self, payload: bytes, subject: str, _reply: str) -> None:
        self._replies.setdefault(subject.rpartition(".")[2], []).append(decode_reply(payload))

    def _receive_events(self, payload: bytes, *_: str) -> None:
        self.events += [json.loads(line) for line in payload.split(b"\n") if line]


def provider(model: ModelProvider, **more: Any) -> Provider:
    """Return the configuration of a scripted provider, which is not asked for a list of models."""
    return Provider(**{"kind": "openai", "url": model.url, "models": ["m"], **more})
