"""A call lane of three minimal services, fused in one exchange or apart on the bus."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from toolbus_common.contracts import (
    CallAdmitted,
    CallError,
    CallNotification,
    CallRequested,
    Progress,
    ProtocolFamily,
)
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_common.errors import ExecutorDownError
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings

Behaviour = Callable[[CallAdmitted, ReplyChannel], Awaitable[None]]


@dataclass
class Chain:
    """Ingress asks, policy admits everything, executor does what the test says."""

    ingress: Service
    policy: Service
    executor: Service
    admitted: list[CallRequested] = field(default_factory=list)

    async def request(
        self,
        on_progress: Callable[[bytes], None] | None = None,
        *,
        arguments: bytes = b"{}",
        seconds: float = 60.0,
    ) -> bytes:
        """One call from ingress to its answer."""
        call_id = self.ingress.calls.new_call_id()
        call = CallRequested(
            call_id=call_id,
            reply_to=self.ingress.calls.address(call_id),
            server="echo",
            tool="say",
            key_digest="key_digest",
            family=ProtocolFamily.LEGACY,
            deadline=time.time() + seconds,
            traceparent="",
            progress=on_progress is not None,
            arguments=arguments,
        )

        def told(frame: CallNotification) -> None:
            assert on_progress is not None
            assert isinstance(frame, Progress)
            on_progress(frame.body)

        final = await self.ingress.calls.request(call, told if on_progress else None)
        return final.body


def admitted(call: CallRequested) -> CallAdmitted:
    """The call as policy would hand it on."""
    return CallAdmitted(
        call_id=call.call_id,
        reply_to=call.reply_to,
        server=call.server,
        tool=call.tool,
        customer="default",
        key="bot",
        family=call.family,
        deadline=call.deadline,
        traceparent=call.traceparent,
        progress=call.progress,
        arguments=call.arguments,
    )


def chain(settings: Settings, behaviour: Behaviour, *, fused: bool) -> Chain:
    """The three services, not yet running."""
    together = ProcessContext()

    def exchange() -> ProcessContext:
        return together if fused else ProcessContext()

    ingress, policy, executor = (
        Service(name, settings, exchange()) for name in ("ingress", "policy", "executor")
    )
    made = Chain(ingress, policy, executor)

    @made.policy.serve_calls(CallRequested)
    async def admit(call: CallRequested, reply: ReplyChannel) -> None:
        made.admitted.append(call)
        nobody = CallError(ExecutorDownError("No executor is there."))
        await made.policy.calls.hand_over(
            admitted(call), reply, lambda: made.policy.spawn(reply.send(nobody))
        )

    made.executor.serve_calls(CallAdmitted)(behaviour)
    return made


@asynccontextmanager
async def running(*services: Service) -> AsyncIterator[None]:
    """These services at work."""
    async with AsyncExitStack() as stack:
        for service in services:
            await stack.enter_async_context(service.running())
        yield
