"""Model requests of a run: each is authorized, priced and recorded like any model request."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import time

from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.access.principal import Principal
from toolbus_common.config import Configuration, ModelTarget
from toolbus_common.contracts import (
    CallAdmitted,
    CallNotification,
    CallRequested,
    CallResult,
    FinalReply,
    Notification,
    ProtocolFamily,
)
from toolbus_common.contracts.agent_runs import AgentCall
from toolbus_common.contracts.base import trusted
from toolbus_common.contracts.model_calls import (
    CHUNK,
    REPORT,
    ModelCall,
    ModelReport,
    decode_report,
)
from toolbus_common.errors import OutcomeUnknownError, ToolbusError, UpstreamInvalidError
from toolbus_common.model_api import routing
from toolbus_common.model_api.fallbacks import first_answer
from toolbus_common.observability.trace_context import child_of
from toolbus_common.service.service import Service

ENDING_SECONDS = 5.0  # of a cancelled request
_call_requested = trusted(CallRequested)


@dataclass(slots=True)
class ModelTurns:
    """Sender of the model requests of one run. `run` is the parent of all calls."""

    service: Service
    directory: ConfigView
    outer: CallAdmitted
    requested: AgentCall
    run: str
    trace: str
    on_begin: Callable[[str, ModelTarget], None]  # receives the id of each call
    on_report: Callable[[ModelReport], None]
    on_failure: Callable[[ToolbusError], None]  # receives the error of each failed call
    started: bool = False  # a part of the stream was received
    _work: "asyncio.Task[FinalReply] | None" = None

    async def ask(
        self,
        principal: Principal,
        body: bytes,
        left: Callable[[], int | None],
        on_part: Callable[[bytes], None],
    ) -> bytes:
        """Return the response of the first target that answers; it is empty after a stream.

        `left` returns the most that one request may cost, which earlier targets have reduced.

        Raises:
            ToolbusError: no target answered; this is the error of the last one.

        """
        requested, declared = self.requested, self.directory.now.configuration
        self.started = False
        targets = routing.targets_of(
            requested.model, principal, declared, requested.models, requested.sticky.encode()
        )

        async def send(target: ModelTarget, number: int) -> bytes:
            call = self._call(target, number, declared, body, left())
            self.on_begin(call.call_id, target)
            try:
                return await self._send(call, on_part)
            except ToolbusError as error:
                self.on_failure(error)
                raise

        return await first_answer(targets, send, lambda: self.started)

    def _call(
        self,
        target: ModelTarget,
        number: int,
        declared: Configuration,
        body: bytes,
        max_charge: int | None,
    ) -> CallRequested:
        requested, outer = self.requested, self.outer
        call_id = self.service.calls.new_call_id()
        seconds = declared.providers[target.provider].max_total_timeout
        alias = requested.model if requested.model in declared.models else ""
        extra = ModelCall(
            alias,
            requested.stream,
            requested.output,
            attempt=number,
            tools=requested.tools,
            beta=requested.beta,
            cache=requested.cache,
            report=True,
        )
        return _call_requested(
            call_id=call_id,
            reply_to=self.service.calls.address(call_id),
            server=target.provider,
            tool=target.model,
            method=requested.method,
            key_digest=outer.key_digest,
            family=ProtocolFamily.MODERN,
            deadline=min(outer.deadline, time() + seconds),
            traceparent=child_of(self.trace),
            tracestate=outer.tracestate,
            parent_id=self.run,
            extra=extra.encode(),
            restriction=requested.models,
            max_charge=max_charge,
            run=self.run,
            arguments=body,
        )

    async def _send(self, call: CallRequested, on_part: Callable[[bytes], None]) -> bytes:
        failed: list[ToolbusError] = []
        parts = 0

        def receive(notification: CallNotification) -> None:
            nonlocal parts
            if not isinstance(notification, Notification):
                return
            if notification.method == REPORT:
                self.on_report(decode_report(notification.body))
            elif notification.method == CHUNK and not failed:
                self.started = True
                parts += 1
                try:
                    check_parts(notification.number or parts, parts)
                    on_part(notification.body)
                except Exception as error:  # noqa: BLE001 - the rest of the stream is useless
                    failed.append(_stream_error(error))
                    self.service.spawn(self.service.calls.cancel(call.call_id))

        work = self._work = self.service.calls.spawn(self.service.calls.request(call, receive))
        try:
            reply = await asyncio.shield(work)
        except asyncio.CancelledError:
            self.service.spawn(self.service.calls.cancel(call.call_id))
            raise
        except ToolbusError:
            if failed:
                raise failed[0] from None
            raise
        if failed:
            raise failed[0]
        if not isinstance(reply, CallResult):
            raise UpstreamInvalidError(
                "The provider's reply is not a model response. Check the provider's 'url' and "
                "'apis'."
            )
        check_parts(reply.parts or parts, parts)
        return reply.body

    async def until_ended(self) -> None:
        """Wait until the last model request has ended, so that its charge is known."""
        if self._work is not None and not self._work.done():
            await asyncio.wait([self._work], timeout=ENDING_SECONDS)


def _stream_error(error: Exception) -> ToolbusError:
    """Return the error of a part that could not be read, such as an event of another form."""
    if isinstance(error, ToolbusError):
        return error
    return UpstreamInvalidError(
        f"The provider's stream has an invalid event ({type(error).__name__}). Check the "
        "provider's 'apis'."
    )


def check_parts(sent: int, received: int) -> None:
    """Check that no part of a stream was lost. Raises `OutcomeUnknownError`."""
    if sent != received:
        raise OutcomeUnknownError(
            "A part of the model's stream was lost between services of the gateway. Continue the "
            "run: the model is then requested again."
        )
