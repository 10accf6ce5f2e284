"""Several messages in one POST, as sessions of 2025-03-26 may send them: each judged on its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from toolbus_common import strict_json
from toolbus_ingress.auth.request_context import Visit
from toolbus_ingress.http import jsonrpc
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.protocol_versions import RuleBrokenError
from toolbus_ingress.sessions.event_log import Journal
from toolbus_ingress.sessions.event_log_store import ANSWER, Shelf
from toolbus_ingress.sessions.session_store import Session
from toolbus_ingress.sessions.sse_writer import EventStream, attend

REVISION = "2025-03-26"  # the only one with batches
MOST = 32
MOST_WAITING = 2048
LARGEST = 32 * 1024 * 1024  # of the stream: its answers must outlast a slow reader

One = Callable[[Visit, Any], Awaitable[Response | None]]

_ACCEPTED = Response(202, b"")


class Batch:
    """One batch: its answers are one JSON array, or a stream once a call has more to say."""

    def __init__(self, visit: Visit, messages: list[Any], shelf: Shelf) -> None:
        self._visit = visit
        self._messages = messages
        self._shelf = shelf
        self._answers: list[bytes] = []
        self._journal: Journal | None = None
        self._telling: asyncio.Task[None] | None = None

    async def answer(self, one: One) -> Response | None:
        """Have each message answered by `one`; None when the answers were streamed."""
        visit = replace(self._visit, tell=self._tell)
        working = [asyncio.create_task(self._take(one(visit, each))) for each in self._messages]
        try:
            await asyncio.gather(*working)
        finally:
            for task in working:
                task.cancel()
        if self._journal is not None and self._telling is not None:
            self._journal.close()
            await self._telling
            return None
        body = b"[%b]" % b",".join(self._answers)
        return Response(jsonrpc.OK, body) if self._answers else _ACCEPTED

    async def _take(self, answering: Awaitable[Response | None]) -> None:
        answer = await answering
        if answer is None or not answer.body:
            return
        if self._journal is not None:
            self._journal.put(answer.body)
        else:
            self._answers.append(answer.body)

    def _tell(self, message: bytes) -> None:
        """Say something before the answers: from now on everything is told on a stream."""
        if self._journal is None:
            visit = self._visit
            self._journal = self._shelf.open(visit.session, ANSWER, MOST_WAITING, LARGEST)
            for answer in self._answers:
                self._journal.put(answer)
            reading = attend(visit.scope, self._journal.read(), EventStream(visit.send))
            self._telling = asyncio.create_task(reading)
        self._journal.put(message)


def check(messages: list[Any], session: Session | None, version: bytes) -> None:
    """Refuse a batch as a whole: one where there are none, or of which answers would be unclear.

    Raises:
        RuleBrokenError: with the answer.

    """
    if session is None or session.claims.version != REVISION or version not in _VERSIONS:
        raise _broken("Send one JSON-RPC 2.0 message; only sessions of 2025-03-26 have batches.")
    if not 0 < len(messages) <= MOST:
        raise _broken(f"A batch holds 1 to {MOST} messages; send several.")
    ids = [
        strict_json.dump(each["id"])
        for each in messages
        if isinstance(each, dict) and "id" in each and "method" in each
    ]
    if len(set(ids)) < len(ids):
        raise _broken("An id is used twice in this batch; give each request its own.")


_VERSIONS = (b"", REVISION.encode())


def _broken(sentence: str) -> RuleBrokenError:
    return RuleBrokenError(jsonrpc.error(400, jsonrpc.INVALID_REQUEST, sentence))
