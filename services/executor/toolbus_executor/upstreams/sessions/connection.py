"""Session with a server: its connection, its owner, and the owner's subscriptions."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic

from toolbus_common.concurrency import Tasks, completely
from toolbus_common.contracts import FOLLOW, CallAdmitted, TaskCreated
from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_executor.mcp_messages.client_capabilities import Kinds, takes_tasks
from toolbus_executor.mcp_messages.request_builder import name_of
from toolbus_executor.mcp_messages.result_mapping import final_reply_of
from toolbus_executor.resilience.health_probe import NoProbeError
from toolbus_executor.upstreams.base import (
    Described,
    SameDeathError,
    Upstream,
    UpstreamCallbacks,
    close_completely,
)
from toolbus_executor.upstreams.call_channel import Question
from toolbus_executor.upstreams.sessions.client_requests import ClientQuestions
from toolbus_executor.upstreams.sessions.idle_shutdown import TASK_SECONDS
from toolbus_executor.upstreams.sessions.owners import Owner
from toolbus_executor.upstreams.subscriptions import Watched
from toolbus_executor.upstreams.suspended_calls import unanswered

log = logging.getLogger(__name__)

PROBES = 5  # probes after a timeout; a process that replies to none of them is ended
PROBE_PAUSE = 2.0

Make = Callable[[UpstreamCallbacks], Upstream]


class Connection:
    """A session. While it has no owner, it is used only for listing."""

    def __init__(
        self,
        news: UpstreamCallbacks,
        make: Make,
        on_lost: "OnLost",
        questions: ClientQuestions,
    ) -> None:
        self.owner: Owner | None = None
        self.kinds: Kinds = frozenset()  # kinds of input requests that its callers support
        self.well = True  # whether the last call had a response
        self.watched = Watched(self._resubscribe_later)
        self.followed = Watched(self._resubscribe_later)
        self._news = news
        self._on_lost = on_lost
        self._questions = questions
        self._died = False
        self._kept_until = 0.0  # end of the time for which a created task needs the session
        self._tasks = Tasks()
        self._answers = Tasks()  # checks of clients' answers
        self.upstream = make(
            replace(
                news,
                on_notification=self._on_notification,
                is_one_client=self._is_one_client,
                forward_request=self._on_request,
            )
        )

    async def open(self) -> Described:
        """Open the session. If that fails, close it and raise the errors of `Upstream.open`."""
        try:
            described = await self.upstream.open()
        except BaseException:
            await close_completely(self.upstream)
            raise
        self._tasks.start(self._watch_loss())
        return described

    @property
    def in_use(self) -> bool:
        """Whether the owner needs the session although no call is in progress."""
        return bool(self.watched.names or self.followed.names or self._kept_until > monotonic())

    async def call(
        self, call: CallAdmitted, response: Awaitable[bytes], *, is_process: bool
    ) -> bytes:
        """Wait for the response to a call, record the outcome, and return the response."""
        if call.guards and self.owner is not None and self._news.note_call is not None:
            self._news.note_call(self.owner.principal_id, self.owner.session, call)
        try:
            raw = await response
        except TimeoutError:
            self.well = False
            if is_process:
                self._probe_soon()
            raise
        except UpstreamDeadError as error:
            counted, self.well = self._died, False
            self._died = is_process
            if counted:
                raise SameDeathError(error.reason, **error.data) from error
            raise
        self.well = True
        if (takes_tasks(call.capabilities) or '"task"' in call.extra) and _creates_task(raw, call):
            self._kept_until = monotonic() + TASK_SECONDS
        return raw

    async def subscribe(self, call: CallAdmitted, seconds: float) -> bytes:
        """Subscribe the owner of the session to a resource or a task, and return the result."""
        if call.method == FOLLOW:
            return await self.followed.subscribe(name_of(call), self.upstream.follow, seconds)
        return await self.watched.subscribe(call.tool, self.upstream.watch, seconds)

    async def inherit(self, watched: frozenset[str], followed: frozenset[str]) -> "Connection":
        """Restore the subscriptions of the owner's previous session.

        Errors of the server are ignored.
        """
        for name in watched:
            self.watched.add(name)
        for name in followed:
            self.followed.add(name)
        try:
            await self._resubscribe()
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Close the session completely, even if this task is cancelled."""
        await completely(self._close())

    async def _close(self) -> None:
        self.watched.close()
        self.followed.close()
        await self._tasks.end()
        await self._answers.end()
        await self.upstream.close()

    def _on_notification(self, method: str, params: bytes) -> None:
        """Forward a notification of the server only to the owner of this session."""
        if self.owner is None or self._news.on_owner_message is None:
            self._news.on_notification(method, params)
        else:
            owner, watched = self.owner, self.watched.names
            self._news.on_owner_message(
                owner.principal_id, owner.session, method, params, watched, ""
            )

    def _is_one_client(self) -> bool:
        return self.owner is not None and bool(self.owner.session)

    def _on_request(self, question: Question) -> None:
        """Forward a request outside of calls to the client that owns this session."""
        if self.owner is None or self._news.on_owner_message is None:
            question.answer(unanswered(question.method))
            return
        owner = self.owner
        checked = replace(question, answer=partial(self._answer, owner, question))
        number = self._questions.put(owner.session, checked)
        if number:
            method, params = question.method, question.params
            self._news.on_owner_message(
                owner.principal_id, owner.session, method, params, (), number
            )

    def _answer(self, owner: Owner, question: Question, member: bytes) -> None:
        """Pass a client's answer to the server, after its guards."""
        self._answers.start(self._pass_checked(owner, question, member))

    async def _pass_checked(self, owner: Owner, question: Question, member: bytes) -> None:
        check = self._news.check_answer
        if check is not None:
            member = await check(owner.principal_id, owner.session, question.method, member)
        question.answer(member)

    async def _watch_loss(self) -> None:
        self._on_lost(self, await self.upstream.wait_lost())

    def _resubscribe_later(self) -> None:
        self._tasks.start(self._resubscribe())

    async def _resubscribe(self) -> None:
        with suppress(ToolbusError, TimeoutError):
            await self.upstream.watch(self.watched.names)
            await self.upstream.follow(self.followed.names)

    def _probe_soon(self) -> None:
        """Probe the process in the background, because a call timed out."""
        if len(self._tasks) < 2:  # noqa: PLR2004 - the task that watches, but no probe
            self._tasks.start(self._probe())

    async def _probe(self) -> None:
        probe = getattr(self.upstream, "probe", None)
        for _ in range(PROBES):
            with suppress(TimeoutError, ToolbusError, NoProbeError):
                await probe()  # type: ignore[misc]
                return
            if self.well:
                return
            await asyncio.sleep(PROBE_PAUSE)
        self._on_lost(self, f"It did not respond to {PROBES} probes in a row.")


def _creates_task(raw: bytes, call: CallAdmitted) -> bool:
    return isinstance(final_reply_of(raw, call)[0], TaskCreated)


OnLost = Callable[[Connection, str], None]


def denied_hosts_of(connections: Collection[Connection]) -> dict[str, int]:
    """Return the hosts that the proxy rejected for these connections, with their counts."""
    found: dict[str, int] = {}
    for each in connections:
        for host, times in getattr(each.upstream, "denied_hosts", {}).items():
            found[host] = found.get(host, 0) + times
    return found
