"""Batches, as sessions of MCP 2025-03-26 may send them: each message is checked on its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from toolbus_common import strict_json
from toolbus_ingress.auth.request_context import RequestContext
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.protocol_versions import ProtocolError
from toolbus_ingress.sessions.event_log import EventLog
from toolbus_ingress.sessions.event_log_store import ANSWER_STREAM, EventLogStore
from toolbus_ingress.sessions.session_store import Session
from toolbus_ingress.sessions.sse_writer import EventStream, serve_reader

REVISION = "2025-03-26"  # the only revision with batches
MAX_MESSAGES = 32
MAX_WAITING = 2048
LARGEST = 32 * 1024 * 1024  # bytes of the stream; a slow reader must not lose answers

MessageHandler = Callable[[RequestContext, Any], Awaitable[Response | None]]

_ACCEPTED = Response(202, b"")
_VERSIONS = (b"", REVISION.encode())


class Batch:
    """One batch. Its answers are one JSON array, or a stream if a call sends notifications."""

    def __init__(
        self, context: RequestContext, messages: list[Any], event_logs: EventLogStore
    ) -> None:
        self._context = context
        self._messages = messages
        self._event_logs = event_logs
        self._answers: list[bytes] = []
        self._event_log: EventLog | None = None
        self._writer: asyncio.Task[None] | None = None

    async def answer(self, handler: MessageHandler) -> Response | None:
        """Pass each message to `handler`; return the answers, or None if they were streamed.

        A message that fails unexpectedly does not cancel the calls of the others.
        """
        context = replace(self._context, write=self._write)
        working = [
            asyncio.create_task(self._collect(handler(context, message)))
            for message in self._messages
        ]
        try:
            results = await asyncio.gather(*working, return_exceptions=True)
        finally:
            for task in working:
                task.cancel()
        for failure in results:
            if failure is not None:
                raise failure
        if self._event_log is not None and self._writer is not None:
            self._event_log.close()
            await self._writer
            return None
        body = b"[%b]" % b",".join(self._answers)
        return Response(jsonrpc.OK, body) if self._answers else _ACCEPTED

    async def _collect(self, answering: Awaitable[Response | None]) -> None:
        answer = await answering
        if answer is None or not answer.body:
            return
        if self._event_log is not None:
            self._event_log.put(answer.body)
        else:
            self._answers.append(answer.body)

    def _write(self, message: bytes) -> None:
        """Write a message before the answers. The response is then a stream."""
        if self._event_log is None:
            context = self._context
            self._event_log = self._event_logs.open(
                context.session, ANSWER_STREAM, MAX_WAITING, LARGEST
            )
            for answer in self._answers:
                self._event_log.put(answer)
            writing = serve_reader(context.scope, self._event_log.read(), EventStream(context.send))
            self._writer = asyncio.create_task(writing)
        self._event_log.put(message)


def check(messages: list[Any], session: Session | None, version: bytes) -> None:
    """Check a batch as a whole.

    Raises:
        ProtocolError: the revision has no batches, the batch is too large, or an id repeats, so
            that its answers would be ambiguous.

    """
    if session is None or session.claims.version != REVISION or version not in _VERSIONS:
        raise _invalid(
            "Batches are supported only in sessions of 2025-03-26. Send one JSON-RPC 2.0 message."
        )
    if not 0 < len(messages) <= MAX_MESSAGES:
        raise _invalid(f"A batch must contain 1 to {MAX_MESSAGES} messages. Split it.")
    ids = [
        strict_json.dump(each["id"])
        for each in messages
        if isinstance(each, dict) and "id" in each and "method" in each
    ]
    if len(set(ids)) < len(ids):
        raise _invalid("Two requests of the batch have the same id. Use unique ids.")


def _invalid(message: str) -> ProtocolError:
    return ProtocolError(jsonrpc.error(400, jsonrpc.INVALID_REQUEST, message))
