"""A cancellation that reaches executor before its call, on a real bus."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.audit.events import bus_of
from harness.gateway.cluster import Upstream
from harness.services.call_runner import admitted
from harness.waits import until, until_async
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import CallCancelled, CallError, CallResult
from toolbus_common.contracts.replies import ReplyMessage, decode_reply
from toolbus_common.errors import CallCancelledError
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONFIG, CONFIGURATION
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.settings import Settings
from toolbus_executor.main import build

REPLY = "tb.reply.ingress.early"


@dataclass
class Asking:
    """Policy, which publishes calls, and ingress, which receives their final replies."""

    policy: Bus
    ends: dict[str, ReplyMessage]
    calls: int = 0

    async def send(self, *, cancelled_before: bool = False) -> str:
        """Publish a call, which may have been cancelled already; return its id."""
        self.calls += 1
        call_id = f"early{self.calls}"
        if cancelled_before:
            cancelled = CallCancelled(call_id=call_id)
            await self.policy.publish(cancelled.subject, cancelled.encode())
        fields = {"call_id": call_id, "server": "echo", "reply_to": f"{REPLY}.{call_id}"}
        call = admitted("say", {"text": call_id}, **fields)
        await self.policy.publish(call.subject, call.encode())
        return call_id

    async def end(self, call_id: str) -> ReplyMessage:
        """Return the final reply of a call."""
        reply: ReplyMessage = await until(lambda: self.ends.get(call_id), "the end of the call")
        return reply


@asynccontextmanager
async def executing(settings: Settings) -> AsyncIterator[Asking]:
    """Run executor; the environment must name the bus."""
    async with bus_of("policy", settings) as policy, bus_of("ingress", settings) as ingress:
        asking = Asking(policy, {})

        def hear(payload: bytes, subject: str, _reply: str) -> None:
            asking.ends[subject.rpartition(".")[2]] = decode_reply(payload)

        await ingress.subscribe(f"{REPLY}.*", hear)
        await ingress.settled()
        async with build(ProcessContext()).running():
            yield asking


async def test_a_call_cancelled_before_it_arrived_never_reaches_its_server(
    settings: Settings, operator: Bus, tmp_path: Path
) -> None:
    echo = Upstream(tmp_path / "echo")
    echo.start()
    try:
        declared = Configuration(servers={"echo": Server(url=echo.url)})
        await (await operator.bucket(CONFIG)).put(
            CONFIGURATION, declared.model_dump_json().encode()
        )
        async with executing(settings) as executor:

            async def goes_through() -> bool:
                await executor.send()
                return any(isinstance(end, CallResult) for end in executor.ends.values())

            await until_async(goes_through, "the server")
            cancelled = await executor.send(cancelled_before=True)
            another = await executor.send()
            end = await executor.end(cancelled)
            assert isinstance(end, CallError)
            assert isinstance(end.error, CallCancelledError)
            assert isinstance(await executor.end(another), CallResult)
            arrived = {call["text"] for call in echo.arrived()}
            assert (another in arrived, cancelled in arrived) == (True, False)
    finally:
        echo.kill()
