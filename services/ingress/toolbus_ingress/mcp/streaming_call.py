"""One call with more than an answer: what is told on the way, and what the server asks back."""

import asyncio
from collections.abc import Callable
from time import time
from typing import Any

import msgspec

from toolbus_common import strict_json
from toolbus_common.contracts import (
    CallNotification,
    CallRequested,
    FinalReply,
    InputRequired,
    Notification,
    Progress,
    ProtocolFamily,
    StreamPaused,
)
from toolbus_common.errors import CallCancelledError, InvalidError
from toolbus_common.messaging.call_transport import CallTransport
from toolbus_ingress.auth.request_context import Visit
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.mcp.legacy.client_requests import (
    MOST_ROUNDS,
    PATIENCE,
    Questions,
    answer_of,
    question,
)
from toolbus_ingress.mcp.tasks import RESULT
from toolbus_ingress.protocol_versions import Request
from toolbus_ingress.sessions.event_log import RETRY_MS, Journal
from toolbus_ingress.sessions.event_log_store import ANSWER, Shelf
from toolbus_ingress.sessions.session_store import Session
from toolbus_ingress.sessions.sse_writer import EventStream, attend, relate

MOST_WAITING = 256  # notifications a slow reader may be behind
LATE_SECONDS = 5.0  # without an answer, after which a client gets an id to come back with
SHORTEST_PAUSE, LONGEST_PAUSE = 100, 30_000  # milliseconds


class Conversation:
    """A call whose answer may become an event stream."""

    def __init__(
        self,
        lane: CallTransport,
        questions: Questions,
        shelf: Shelf,
        visit: Visit,
        request: Request,
        give_up: Callable[[str], None],
    ) -> None:
        self._lane = lane
        self._give_up = give_up  # whoever keeps a call for its caller's answers need not any more
        self._questions = questions
        self._shelf = shelf
        self._visit = visit
        self._request = request
        self._polls = visit.session is not None and visit.session.polls and visit.tell is None
        self._journal: Journal | None = None  # only once there is something to tell
        self._telling: asyncio.Task[None] | None = None
        self._asked = ""  # the last round that ended with questions
        self._task = str(request.params.get("taskId")) if request.method == RESULT else ""
        self._seconds = 0.0  # what each round may take; a person's time is not counted

    @property
    def begun(self) -> bool:
        """Whether anything was streamed, so that the end must be too."""
        return self._journal is not None

    async def hold(self, call: CallRequested) -> FinalReply:
        """Make the call; in the families with a handshake, ask the client whatever is asked of it.

        Raises:
            ToolbusError: the call failed.

        """
        self._seconds = call.deadline - time()
        timers = self._timers() if self._polls else []
        try:
            return await self._rounds(call)
        except BaseException:
            if self._asked:  # its answers will not come
                self._give_up(self._asked)
            raise
        finally:
            for timer in timers:
                timer.cancel()

    def _timers(self) -> list[asyncio.TimerHandle]:
        """What becomes of a connection whose answer takes its time."""
        loop, poll_after = asyncio.get_running_loop(), self._shelf.poll_after
        timers = [loop.call_later(LATE_SECONDS, self._opened)]
        if poll_after:
            timers.append(loop.call_later(poll_after, self._pause, RETRY_MS))
        return timers

    async def _rounds(self, call: CallRequested) -> FinalReply:
        first = call.call_id
        for _ in range(MOST_ROUNDS):
            ending = await self._lane.ask(call, self._told)
            if (
                not isinstance(ending, InputRequired)
                or self._request.family is ProtocolFamily.MODERN
            ):
                return ending
            self._asked = call.call_id
            call = self._again(call, await self._answers(ending.body), first)
        raise InvalidError("The server keeps asking, and never comes to an answer.")

    async def end(self, answer: Response) -> Response | None:
        """The answer, on the stream if there is one."""
        if self._journal is None or self._telling is None:
            return answer
        self._journal.put(answer.body)
        self._journal.close()
        await self._telling
        return None

    def _told(self, told: CallNotification) -> None:
        if not isinstance(told, StreamPaused):
            self._say(self._message(told))
        elif self._polls:
            # The server sent us away for a while; whoever waits for us can go as well.
            self._pause(min(max(told.milliseconds, SHORTEST_PAUSE), LONGEST_PAUSE))

    def _pause(self, retry: int) -> None:
        journal = self._opened()
        if journal.keeps:
            journal.pause(retry)

    def _say(self, message: bytes) -> None:
        (self._visit.tell or self._opened().put)(message)

    def _opened(self) -> Journal:
        """The journal of this call; whoever asked reads it from now on."""
        if self._journal is not None:
            return self._journal
        visit = self._visit
        journal = self._journal = self._shelf.open(visit.session, ANSWER, MOST_WAITING)
        stream = EventStream(visit.send)
        if self._polls:
            journal.mark()
        reader = journal.read()
        telling = attend(visit.scope, reader, stream) if journal.keeps else relate(reader, stream)
        self._telling = asyncio.create_task(telling)
        return journal

    def _message(self, told: Progress | Notification) -> bytes:
        if not isinstance(told, Progress):
            return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (
                strict_json.dump(told.method), told.body,
            )  # fmt: skip
        params = msgspec.json.decode(told.body, type=dict[str, msgspec.Raw])
        token = strict_json.dump(self._request.meta.get("progressToken"))
        params["progressToken"] = msgspec.Raw(token)
        return b'{"jsonrpc":"2.0","method":"notifications/progress","params":%b}' % (
            msgspec.json.encode(params)
        )

    async def _answers(self, body: bytes) -> dict[str, Any]:
        """Put every question to the client at once; the params of the next round."""
        asked = msgspec.json.decode(body)
        requests = asked.get("inputRequests") or {}
        for each in requests.values():
            question("", each, self._session())  # before the client is asked half of them
        putting = [asyncio.ensure_future(self._put(each)) for each in requests.values()]
        try:
            found = await asyncio.gather(*putting)
        finally:
            for each in putting:
                each.cancel()
        told: dict[str, Any] = {"inputResponses": dict(zip(requests, found, strict=True))}
        if "requestState" in asked:
            told["requestState"] = asked["requestState"]
        return told

    async def _put(self, asked: Any) -> Any:
        session = self._session()
        async with self._questions.asking(session.sid, self._request.id) as (number, answer):
            self._say(question(number, asked, session, self._task))
            try:
                async with asyncio.timeout(PATIENCE):
                    told = await answer
            except TimeoutError as error:
                raise InvalidError(f"The client did not answer within {PATIENCE:g} s.") from error
        if told is None:
            raise CallCancelledError("The caller took the call back before it answered.")
        return answer_of(told, asked["method"])

    def _session(self) -> Session:
        if self._visit.session is None:
            raise InvalidError("The server asks its caller something, which needs a session.")
        return self._visit.session

    def _again(self, call: CallRequested, told: dict[str, Any], first: str) -> CallRequested:
        """The next round: a call of its own, with the time the first one had."""
        extra = (msgspec.json.decode(call.extra) if call.extra else {}) | told
        if "requestState" not in told:
            extra.pop("requestState", None)
        call_id = self._lane.new_call_id()
        session = self._visit.session
        if session is not None:
            session.in_flight[self._request.id] = call_id
        return call.model_copy(
            update={
                "call_id": call_id,
                "reply_to": self._lane.address(call_id),
                "parent_id": first,
                "deadline": time() + self._seconds,
                "extra": strict_json.dump(extra).decode(),
            }
        )
