"""Call path of three minimal services, fused in one process or separate on the bus."""

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
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import ExecutorDownError
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings

Behaviour = Callable[[CallAdmitted, CallContext], Awaitable[Reply | None]]


@dataclass
class Chain:
    """Ingress sends calls, policy admits all of them, executor does what the test defines."""

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
        """Send one call from ingress and return the final body."""

        def relay(frame: CallNotification) -> None:
            assert on_progress is not None
            assert isinstance(frame, Progress)
            on_progress(frame.body)

        call = self._call(arguments, seconds, progress=on_progress is not None)
        final = await self.ingress.calls.request(call, relay if on_progress else None)
        return final.body

    async def request_detached(self) -> bytes:
        """Send one call from a task that may be cancelled, and return the final body."""
        return (await self.ingress.calls.request_detached(self._call(b"{}", 60.0))).body

    def _call(self, arguments: bytes, seconds: float, *, progress: bool = False) -> CallRequested:
        call_id = self.ingress.calls.new_call_id()
        return CallRequested(
            call_id=call_id,
            reply_to=self.ingress.calls.address(call_id),
            server="echo",
            tool="say",
            key_digest="key_digest",
            family=ProtocolFamily.LEGACY,
            deadline=time.time() + seconds,
            traceparent="",
            progress=progress,
            arguments=arguments,
        )


def admitted(call: CallRequested) -> CallAdmitted:
    """Return the call as policy hands it over."""
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
        parent_id=call.parent_id,
        method=call.method,
        extra=call.extra,
        arguments=call.arguments,
    )


def chain(settings: Settings, behaviour: Behaviour, *, fused: bool) -> Chain:
    """Build the three services without starting them."""
    together = ProcessContext()

    def exchange() -> ProcessContext:
        return together if fused else ProcessContext()

    ingress, policy, executor = (
        Service(name, settings, exchange()) for name in ("ingress", "policy", "executor")
    )
    made = Chain(ingress, policy, executor)

    @made.policy.serve_calls(CallRequested)
    async def admit(call: CallRequested, context: CallContext) -> Reply | None:
        made.admitted.append(call)
        unavailable = CallError(ExecutorDownError("No executor is there."))
        return await made.policy.calls.hand_over(
            admitted(call), context, lambda: context.send(unavailable)
        )

    made.executor.serve_calls(CallAdmitted)(behaviour)
    return made


@asynccontextmanager
async def running(*services: Service) -> AsyncIterator[None]:
    """Run services for the length of the block."""
    async with AsyncExitStack() as stack:
        for service in services:
            await stack.enter_async_context(service.running())
        yield
