"""Two executors of one server: stored results are shared, caches are separate."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from time import time
from typing import Any

import pytest

from harness.upstreams.large_result_server import LINE, LargeResultServer
from harness.waits import until_async
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import (
    CallAdmitted,
    CallCompleted,
    CallError,
    CallRequested,
    Event,
    ProtocolFamily,
)
from toolbus_common.contracts.events.encoded import EncodedEvent
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import ExecutorDownError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_executor.main import build

LONG = 2 << 20  # bytes; more than the configured limit for a direct result
ENOUGH = 64  # calls, of which each executor certainly gets some


class TwoExecutors:
    """A client on the bus with a policy that admits every call, and the executor of each answer."""

    def __init__(self, settings: Settings) -> None:
        self.vast = LargeResultServer()
        self.executors = [build(ProcessContext()) for _ in range(2)]
        self.ingress, self.policy = Service("ingress", settings), Service("policy", settings)
        self.answered = Counter[int]()  # by each executor, its number of calls
        for number, service in enumerate(self.executors):
            self._overhear(number, service)

        @self.policy.serve_calls(CallRequested)
        async def admit(call: CallRequested, context: CallContext) -> Reply | None:
            given = {name: getattr(call, name) for name in CallRequested.model_fields}
            no_executor = CallError(ExecutorDownError("No executor is there."))
            return await self.policy.calls.hand_over(
                CallAdmitted(**given, customer="acme", key="bot"),
                context,
                lambda: context.send(no_executor),
            )

    def _overhear(self, number: int, service: Service) -> None:
        say = service.events.publish

        def record(event: Event | EncodedEvent) -> None:
            self.answered[number] += event.NAME == CallCompleted.NAME
            say(event)

        service.events.publish = record  # type: ignore[method-assign]

    async def request(self, tool: str, method: str = "tools/call", **arguments: Any) -> Any:
        """Make one call; return the decoded result, or None after an error."""
        call_id = self.ingress.calls.new_call_id()
        final = await self.ingress.calls.request(
            CallRequested(
                call_id=call_id,
                reply_to=self.ingress.calls.address(call_id),
                server="vast",
                tool=tool,
                method=method,
                key_digest="key_digest",
                family=ProtocolFamily.MODERN,
                deadline=time() + 60,
                traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
                arguments=json.dumps(arguments).encode(),
            )
        )
        return None if isinstance(final, CallError) else json.loads(final.body)

    async def read(self, uri: str) -> str:
        """Read a part of a stored result."""
        reply = await self.request(uri, "resources/read", uri=uri)
        return str(reply["contents"][0]["text"])

    async def both_answer(self) -> bool:
        """Return whether both executors take calls; the bus selects the executor."""
        try:
            await self.request("rows", bytes=1)
        except ExecutorDownError:  # neither is connected yet
            return False
        return len(self.answered) == len(self.executors)


@pytest.fixture
async def pair(settings: Settings, operator: Bus) -> AsyncIterator[TwoExecutors]:
    executors = TwoExecutors(settings)
    await executors.vast.start()
    try:
        declared = Server(
            url=executors.vast.url,
            results={"limit": 1 << 16},
            tools={"text": {"cache": {"ttl": 3600}}},
        )
        config = await operator.bucket(CONFIG)
        whole = Configuration(servers={"vast": declared})
        await config.put("configuration", whole.model_dump_json().encode())
        async with AsyncExitStack() as stack:
            for service in (*executors.executors, executors.policy, executors.ingress):
                await stack.enter_async_context(service.running())
            await until_async(executors.both_answer, "two executors that both answer")
            executors.answered.clear()
            yield executors
    finally:
        await executors.vast.close()


async def test_a_result_stored_by_one_executor_is_read_through_the_other(
    pair: TwoExecutors,
) -> None:
    reply = await pair.request("streamed", bytes=LONG)
    (link,) = (each for each in reply["content"] if each["type"] == "resource_link")
    (owner,) = pair.answered
    pair.answered.clear()
    pieces = await asyncio.gather(
        *(pair.read(f"{link['uri']}?offset=0&length=4096") for _ in range(ENOUGH))
    )
    assert len(set(pieces)) == 1
    assert pieces[0].startswith(LINE)
    assert pair.answered[1 - owner] > 0, "the other one has read it"
    assert sum(pair.answered.values()) == ENOUGH


async def test_each_executor_fills_its_own_cache(pair: TwoExecutors) -> None:
    before = pair.vast.call_count
    replies = [await pair.request("text", bytes=1) for _ in range(ENOUGH)]
    assert all(each == replies[0] for each in replies)
    assert sorted(pair.answered) == [0, 1]
    assert pair.vast.call_count - before == 2
