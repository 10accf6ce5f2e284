"""Asking a server that may ask back: one round ends with its result or with its questions."""

import asyncio
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from toolbus_common.contracts import ERROR, CallAdmitted, ProtocolFamily
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_common.errors import InvalidError, UpstreamRefusedError
from toolbus_common.observability.tracing import Span
from toolbus_executor import tracing
from toolbus_executor.mcp_messages.client_capabilities import URL, kinds_of
from toolbus_executor.upstreams.base import Upstream, asks
from toolbus_executor.upstreams.call_channel import MOST_QUESTIONS, Caller
from toolbus_executor.upstreams.deadline_extension import Extending
from toolbus_executor.upstreams.mcp_tasks.elicitation import TaskQuestions, concerns
from toolbus_executor.upstreams.sessions.connection_choice import MAY_ASK
from toolbus_executor.upstreams.suspended_calls import (
    PARK_SECONDS,
    Park,
    Parked,
    answer,
    binding_of,
    brought,
    error_in,
)

GATHER_SECONDS = 0.02  # a server may ask several things at once
URL_REQUIRED = -32042


class Rounds:
    """The rounds of one server's calls."""

    def __init__(self, instance: str, extending: Extending) -> None:
        self.park = Park(instance)
        self._extending = extending
        self._of_tasks = TaskQuestions(instance)

    def close(self) -> None:
        """Give up what waits for its caller."""
        self.park.close()
        self._of_tasks.close()

    def ask(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, reply: ReplyChannel
    ) -> Awaitable[bytes]:
        """The raw result of a round. Raises what `Upstream.call` raises, when awaited."""
        attempt = tracing.attempting(call)
        if not isinstance(attempt, Span):
            return self._asked(upstream, call, seconds, reply)
        asked = self._asked(upstream, tracing.carried(call, attempt), seconds, reply)
        return attempt.around(tracing.answered(attempt, asked))

    async def _asked(
        self, upstream: Upstream, call: CallAdmitted, seconds: float, reply: ReplyChannel
    ) -> bytes:
        caller = Caller(call, reply, self._extending)
        try:
            if not asks(upstream, call) or call.method not in MAY_ASK:
                caller.likely = False
                if ERROR in call.extra:
                    _refuse_errors(call)
                if concerns(call) and asks(upstream, call):
                    return await self._of_tasks.ask(upstream, call, seconds, caller)
                return await upstream.call(call, seconds, caller)
            if call.extra:
                state, answers = brought(call.extra)
                if state:
                    return await self._resume(state, call, seconds, reply)
                if answers and not _all_accepted(answers.values()):
                    return _declined()
            if not kinds_of(call.capabilities):
                return await upstream.call(call, seconds, caller)
            task = asyncio.create_task(upstream.call(call, PARK_SECONDS + seconds, caller))
            return await self._round(Parked(binding_of(call), task, caller), call, seconds)
        finally:
            await caller.flushed()

    async def _resume(
        self, state: str, call: CallAdmitted, seconds: float, reply: ReplyChannel
    ) -> bytes:
        parked = self.park.take(state, call)
        _, answers = brought(call.extra)
        parked.caller.answer_to(call, reply, self._extending)
        # A question of another call of the same client may have come with this one.
        answer(parked.caller, answers or {})
        if parked.caller.questions and not parked.task.done():
            parked.caller.suspend()
            return self.park.put(parked, call.call_id)
        try:
            return await self._round(parked, call, seconds)
        finally:
            await parked.caller.flushed()

    async def _round(self, parked: Parked, call: CallAdmitted, seconds: float) -> bytes:
        """Wait for the result, or for questions."""
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[None] = loop.create_future()
        parked.caller.asked = asked
        if parked.caller.questions:
            asked.set_result(None)
        try:
            await _first(parked, asked, seconds)
            if not parked.task.done():
                await asyncio.wait((parked.task,), timeout=GATHER_SECONDS)
        except (TimeoutError, asyncio.CancelledError):
            parked.end()
            raise
        finally:
            parked.caller.asked = None
        if not parked.task.done():
            parked.caller.suspend()
            return self.park.put(parked, call.call_id)
        parked.settle()
        try:
            return parked.task.result()
        except UpstreamRefusedError as error:
            return _pages(error, call)


async def _first(parked: Parked, asked: asyncio.Future[None], seconds: float) -> None:
    """Wait for the result or a question, for as long as progress extends the call."""
    while seconds > 0:
        both = (parked.task, asked)
        done, _ = await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if done:
            return
        seconds = parked.caller.left()
    raise TimeoutError


def _pages(error: UpstreamRefusedError, call: CallAdmitted) -> bytes:
    """A refusal that wants pages opened first, as questions; any other is raised again."""
    data = error.data.get("upstream_data")
    pages = data.get("elicitations") if isinstance(data, dict) else None
    able = call.family is ProtocolFamily.MODERN and URL in kinds_of(call.capabilities)
    if error.data.get("upstream_code") != URL_REQUIRED or not able or not isinstance(pages, list):
        raise error
    asked = {
        f"page{number}": {"method": "elicitation/create", "params": _page(page)}
        for number, page in enumerate(pages[:MOST_QUESTIONS], 1)
        if isinstance(page, dict)
    }
    if not asked:
        raise error
    return msgspec.json.encode({"resultType": "input_required", "inputRequests": asked})


def _page(page: dict[str, Any]) -> dict[str, Any]:
    """A page to open as the stateless family asks for it, which gives pages no ids."""
    return {name: value for name, value in page.items() if name != "elicitationId"} | {
        "mode": "url"
    }


def _all_accepted(answers: Iterable[msgspec.Raw]) -> bool:
    for raw in answers:
        with suppress(msgspec.DecodeError):
            told = msgspec.json.decode(raw)
            if isinstance(told, dict) and told.get("action") in ("decline", "cancel"):
                return False
    return True


def _declined() -> bytes:
    text = "The page the server wanted opened first was declined, so it was not asked again."
    return msgspec.json.encode({"content": [{"type": "text", "text": text}], "isError": True})


def _refuse_errors(call: CallAdmitted) -> None:
    """Raise `InvalidError` where a client answered with an error that a stateless server lacks.

    That family has no errors among answers; an elicitation's is a cancelled one there.
    """
    for raw in (brought(call.extra)[1] or {}).values():
        found = error_in(raw)
        if found is not None and "action" not in msgspec.json.decode(raw):
            raise InvalidError(
                f"The client refused what the server asked of it: {found.get('message', '')} "
                f"({found.get('code')}). Call again, and answer the request.",
                sent=False,
            )
