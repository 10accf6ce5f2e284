"""Execution plans: decisions about the calls of one tool, made once for many calls."""

from collections.abc import Callable
from dataclasses import dataclass

from toolbus_common.config.servers.timeouts import Timeouts
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, ProtocolFamily
from toolbus_common.observability.trace_context import is_sampled
from toolbus_common.observability.tracing.spans import recording
from toolbus_executor.results.response_cache import ResponseCache
from toolbus_executor.upstreams.base import Send, Upstream, plain_sender
from toolbus_executor.upstreams.deadline_extension import DeadlineExtension
from toolbus_executor.validation import Checks

MAX_PLANS = 5_000
_MODERN = ProtocolFamily.MODERN


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """Decisions about the calls of one method and tool over one connection to the server.

    `generation` is that of the server's definitions. `send` sends the call; it is None without a
    connection. `is_plain` is true if `send` is the adapter's own function, so that the calls use no
    sessions, round trips, tasks, replicas, tokens of users or spans.
    """

    upstream: Upstream | None
    generation: int
    timeouts: Timeouts
    cache: ResponseCache | None
    checks_arguments: bool
    checks_results: bool
    is_plain: bool
    send: Send | None


class ExecutionPlans:
    """The plans of one server, made when first needed.

    A plan becomes invalid with its connection, or when the server's definitions change.
    """

    def __init__(
        self,
        checks: Checks,
        extending: DeadlineExtension,
        cache: ResponseCache | None,
        other_sender: Callable[[Upstream, str], Send],
    ) -> None:
        """Start without plans. `other_sender` returns the function for calls that are not plain."""
        self._other_sender = other_sender
        self._checks = checks
        self._extending = extending
        self._cache = cache
        self._plans: dict[tuple[str, str, bool], ExecutionPlan] = {}

    def find(self, call: CallAdmitted, upstream: Upstream | None) -> ExecutionPlan:
        """Return the plan of a call over the connection that the server has now."""
        tool = call.tool if call.method == TOOLS_CALL else ""
        # A call is not plain if it has input responses, a task or foreign members of `_meta`
        # (`extra`), if a family is session-based, or if its spans are recorded.
        is_plain = (
            not call.extra
            and call.family is _MODERN
            and call.caller_family in (None, _MODERN)
            and (recording.sink is None or not is_sampled(call.traceparent))
        )
        key = call.method, tool, is_plain
        plan = self._plans.get(key)
        if (
            plan is None
            or plan.upstream is not upstream
            or plan.generation != self._checks.generation
        ):
            if plan is not None or len(self._plans) >= MAX_PLANS:
                self._plans.clear()  # if one plan is invalid, all others are too
            plan = self._plans[key] = self._make(call, upstream, is_plain=is_plain)
        return plan

    def _make(
        self, call: CallAdmitted, upstream: Upstream | None, *, is_plain: bool
    ) -> ExecutionPlan:
        is_tool, cache = call.method == TOOLS_CALL, self._cache
        send = plain_sender(upstream, call.tool) if is_tool and is_plain else None
        is_plain = send is not None
        if send is None and upstream is not None:
            send = self._other_sender(upstream, call.method)
        return ExecutionPlan(
            upstream=upstream,
            generation=self._checks.generation,
            timeouts=self._extending.timeouts(call),
            cache=cache if is_tool and cache is not None and cache.configures(call.tool) else None,
            checks_arguments=is_tool and self._checks.has_arguments(call.tool),
            checks_results=is_tool and self._checks.has_result(call.tool),
            is_plain=is_plain,
            send=send,
        )
