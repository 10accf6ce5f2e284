"""Round trips of a call.

Each round trip ends with a result or with input requests of the server.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from toolbus_common.contracts import ERROR, CallAdmitted, ProtocolFamily
from toolbus_common.errors import InvalidError, UpstreamRefusedError
from toolbus_common.observability.tracing import Span
from toolbus_executor import tracing
from toolbus_executor.mcp_messages.client_capabilities import URL, kinds_of
from toolbus_executor.upstreams.base import Upstream, sends_requests
from toolbus_executor.upstreams.call_channel import MAX_QUESTIONS, Caller
from toolbus_executor.upstreams.deadline_extension import DeadlineExtension
from toolbus_executor.upstreams.mcp_tasks.elicitation import TaskInputRequests, concerns
from toolbus_executor.upstreams.sessions.connection_choice import MAY_ASK
from toolbus_executor.upstreams.suspended_calls import (
    SUSPENSION_SECONDS,
    SuspendedCall,
    SuspendedCalls,
    answer,
    answers_in,
    binding_of,
    error_in,
)

GATHER_SECONDS = 0.02  # pause to collect several input requests of the server
URL_REQUIRED = -32042


class RoundTrips:
    """The round trips of one server's calls."""

    def __init__(self, instance: str, extending: DeadlineExtension) -> None:
        self.suspended_calls = SuspendedCalls(instance)
        self._extending = extending
        self._of_tasks = TaskInputRequests(instance)

    def close(self) -> None:
        """Cancel every suspended call."""
        self.suspended_calls.close()
        self._of_tasks.close()

    def send(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, caller: Caller
    ) -> Awaitable[bytes]:
        """Return the raw result of one round trip, as an awaitable. Raises like `Upstream.call`."""
        attempt = tracing.start_attempt(call)
        if not isinstance(attempt, Span):
            return self._send(upstream, call, seconds, caller)
        question = self._send(upstream, tracing.with_attempt(call, attempt), seconds, caller)
        return attempt.around(tracing.record_result(attempt, question))

    async def _send(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, caller: Caller
    ) -> bytes:
        if not sends_requests(upstream, call) or call.method not in MAY_ASK:
            caller.likely = False
            if ERROR in call.extra:
                _reject_error_answers(call)
            if concerns(call) and sends_requests(upstream, call):
                return await self._of_tasks.request(upstream, call, seconds, caller)
            return await upstream.call(call, seconds, caller)
        if call.extra:
            state, answers = answers_in(call.extra)
            if state:
                return await self._resume(state, call, seconds, caller)
            if answers and not _all_accepted(answers.values()):
                return _declined_result()
        if not kinds_of(call.capabilities):
            return await upstream.call(call, seconds, caller)
        task = asyncio.create_task(upstream.call(call, SUSPENSION_SECONDS + seconds, caller))
        return await self._round(SuspendedCall(binding_of(call), task, caller), call, seconds)

    async def _resume(
        self, state: str, call: CallAdmitted, seconds: float, caller: Caller
    ) -> bytes:
        suspended = self.suspended_calls.take(state, call)
        _, answers = answers_in(call.extra)
        suspended.caller.answer_to(call, caller.context, self._extending)
        # This call may also bring answers to another call of the same client.
        answer(suspended.caller, answers or {})
        if suspended.caller.questions and not suspended.task.done():
            suspended.caller.suspend()
            return self.suspended_calls.put(suspended, call.call_id)
        try:
            return await self._round(suspended, call, seconds)
        finally:
            await suspended.caller.flushed()

    async def _round(self, suspended: SuspendedCall, call: CallAdmitted, seconds: float) -> bytes:
        """Wait for the result or for input requests. On input requests, suspend the call."""
        loop = asyncio.get_running_loop()
        question: asyncio.Future[None] = loop.create_future()
        suspended.caller.next_request = question
        if suspended.caller.questions:
            question.set_result(None)
        try:
            await _wait_first(suspended, question, seconds)
            if not suspended.task.done():
                await asyncio.wait((suspended.task,), timeout=GATHER_SECONDS)
        except (TimeoutError, asyncio.CancelledError):
            suspended.end()
            raise
        finally:
            suspended.caller.next_request = None
        if not suspended.task.done():
            suspended.caller.suspend()
            return self.suspended_calls.put(suspended, call.call_id)
        suspended.settle()
        try:
            return suspended.task.result()
        except UpstreamRefusedError as error:
            return _pages_as_questions(error, call)


async def _wait_first(
    suspended: SuspendedCall, question: asyncio.Future[None], seconds: float
) -> None:
    """Wait for the result or for an input request. Progress extends the time limit."""
    while seconds > 0:
        both = (suspended.task, question)
        done, _ = await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if done:
            return
        seconds = suspended.caller.left()
    raise TimeoutError


def _pages_as_questions(error: UpstreamRefusedError, call: CallAdmitted) -> bytes:
    """Convert an error that requires opening pages to input requests; raise any other error."""
    data = error.data.get("upstream_data")
    pages = data.get("elicitations") if isinstance(data, dict) else None
    able = call.family is ProtocolFamily.MODERN and URL in kinds_of(call.capabilities)
    if error.data.get("upstream_code") != URL_REQUIRED or not able or not isinstance(pages, list):
        raise error
    question = {
        f"page{number}": {"method": "elicitation/create", "params": _page(page)}
        for number, page in enumerate(pages[:MAX_QUESTIONS], 1)
        if isinstance(page, dict)
    }
    if not question:
        raise error
    return msgspec.json.encode({"resultType": "input_required", "inputRequests": question})


def _page(page: dict[str, Any]) -> dict[str, Any]:
    """Convert a request to open a page to the form of the stateless family, which has no id."""
    return {name: value for name, value in page.items() if name != "elicitationId"} | {
        "mode": "url"
    }


def _all_accepted(answers: Iterable[msgspec.Raw]) -> bool:
    for raw in answers:
        with suppress(msgspec.DecodeError):
            answer_value = msgspec.json.decode(raw)
            if isinstance(answer_value, dict) and answer_value.get("action") in (
                "decline",
                "cancel",
            ):
                return False
    return True


def _declined_result() -> bytes:
    text = (
        "The user declined to open the page that the server requires, so the call was not "
        "repeated. To open the page, call the tool again."
    )
    return msgspec.json.encode({"content": [{"type": "text", "text": text}], "isError": True})


def _reject_error_answers(call: CallAdmitted) -> None:
    """Reject an error in a client's answers, which stateless servers do not support.

    In the stateless family, a cancelled elicitation is an `action`, not an error.

    Raises `InvalidError`.
    """
    for raw in (answers_in(call.extra)[1] or {}).values():
        found = error_in(raw)
        if found is not None and "action" not in msgspec.json.decode(raw):
            raise InvalidError(
                "The server's request was answered with an error: "
                f"{found.get('message', '')} ({found.get('code')}). "
                "Correct the cause, then call again.",
                sent=False,
            )
