"""One guard that asks a service: cache, circuit breaker, concurrency, time limit, status."""

import asyncio
import logging
from time import monotonic, perf_counter, time
from typing import Any

from toolbus_common.config import Guard
from toolbus_common.config.guards.services import options_of
from toolbus_common.contracts.guards import CheckedCall, ServiceVerdict
from toolbus_common.errors import (
    BreakerOpenError,
    GuardFailedError,
    ToolbusError,
    UpstreamDeadError,
    UpstreamTimeoutError,
)
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.observability.metrics import GUARD_SERVICE_CHECKS, GUARD_SERVICE_SECONDS
from toolbus_executor.guard_services.adapters.base import (
    CheckedContent,
    ServiceAdapter,
    ServiceFindings,
)
from toolbus_executor.guard_services.checks.cache import VerdictCache, key_of
from toolbus_executor.guard_services.checks.requests import Requests
from toolbus_executor.resilience.breaker_reporter import BreakerReporter
from toolbus_executor.resilience.failure_log import shared_reason

log = logging.getLogger(__name__)

AT_ONCE = 8  # requests about one content
LATEST = 0.2  # weight of the latest duration in the average


class ServiceGuard:
    """A guard and its service.

    `adapter` is None while the guard's secrets are unavailable; `why_not` is the reason.
    """

    def __init__(self, name: str, guard: Guard, events: EventPublisher) -> None:
        self.name = name
        self.guard = guard
        self.adapter: ServiceAdapter | None = None
        self.why_not = "its secrets have not been read yet"
        self.attempted = asyncio.Event()  # set after the first attempt to create the adapter
        options = options_of(guard.kind, guard.options)
        self._breaker = BreakerReporter(f"guard:{name}", events)
        self._slots = asyncio.Semaphore(options.concurrency)
        self._cache = VerdictCache(options.cache)
        self._durations = GUARD_SERVICE_SECONDS.labels(name)
        self._in_flight = 0
        self._latency = 0.0  # average of the latest checks, in seconds

    async def check(self, phase: str, call: CheckedCall, content: bytes) -> ServiceVerdict:
        """Return what the service found.

        Raises:
            GuardFailedError: the service could not check. The reason contains no content.

        """
        try:
            return await self._checked(CheckedContent(phase, call, content))
        except ToolbusError as error:
            reason = shared_reason(error)  # without a server's own text
            outcome = error.code
            retry_after = error.data.get("retry_after")
        except ValueError:  # the text of the parser's error can contain content
            reason = "The content is not a JSON document that guards can check."
            outcome, retry_after = "invalid", None
        GUARD_SERVICE_CHECKS.labels(self.name, outcome).inc()
        fields = {"guard": self.name, "phase": phase, "call_id": call.call_id, "reason": reason}
        log.warning("guard.service_failed", extra=fields)
        more = {} if retry_after is None else {"retry_after": retry_after}
        raise GuardFailedError(reason, guard=self.name, phase=phase, **more)

    def status(self) -> dict[str, Any]:
        """Return the row of this guard in `toolbus status`."""
        state = "ready" if self.adapter is not None else "failed"
        return {
            "name": f"guard:{self.name}",
            "kind": self.guard.kind,
            "state": state if self.attempted.is_set() else "connecting",
            "version": "",
            "tools": 0,
            "breaker": self._breaker.circuit.state.value,
            "in_flight": self._in_flight,
            "waiting": 0,
            "latency_ms": round(self._latency * 1000, 1),
            "failures": self._breaker.failures.recent(),
            "drained": False,
            "last_failure": self._breaker.failures.last
            or ("" if self.adapter is not None else self.why_not),
        }

    async def _checked(self, checked: CheckedContent) -> ServiceVerdict:
        seconds = min(self.guard.timeout, checked.call.deadline - time())
        deadline = monotonic() + seconds
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self.attempted.wait()
        except TimeoutError as error:
            raise self._late() from error
        adapter = self.adapter
        if adapter is None:
            raise UpstreamDeadError(self.why_not, sent=False)
        key = key_of(checked, with_call=adapter.depends_on_call)
        cached = self._cache.find(key)
        if cached is not None:
            GUARD_SERVICE_CHECKS.labels(self.name, "cached").inc()
            return cached
        requests = Requests(checked.content, adapter.limits)
        self._in_flight += 1
        began = perf_counter()
        try:
            found = await self._responses(adapter, checked, requests, deadline)
        finally:
            self._in_flight -= 1
        self._note(perf_counter() - began)
        rules = self.guard.rules
        verdict = requests.verdict(found, rules, self.guard.except_rules)
        self._cache.store(key, verdict)
        GUARD_SERVICE_CHECKS.labels(self.name, "flagged" if verdict.findings else "passed").inc()
        return verdict

    async def _responses(
        self, adapter: ServiceAdapter, checked: CheckedContent, requests: Requests, deadline: float
    ) -> list[ServiceFindings]:
        """Return the results of all requests about one content. The breaker counts them as one."""
        self._admit()
        at_once = asyncio.Semaphore(AT_ONCE)

        async def ask(texts: list[str]) -> ServiceFindings:
            async with at_once, self._slots:
                return await adapter.check(checked, texts, deadline - monotonic())

        try:
            async with asyncio.timeout(max(0.0, deadline - monotonic())):
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(ask([sent.text for sent in request]))
                        for request in requests.requests
                    ]
        except TimeoutError as error:
            raise self._failed(self._late()) from error
        except BaseExceptionGroup as errors:
            raise self._error_of(errors.exceptions[0]) from errors
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return [task.result() for task in tasks]

    def _admit(self) -> None:
        try:
            self._breaker.admit()
        except BreakerOpenError as error:
            raise BreakerOpenError(
                f"The service failed repeatedly and is not used for "
                f"{error.data['retry_after']:.1f} s: {self._breaker.failures.last}",
                sent=False,
                retry_after=error.data["retry_after"],
            ) from error

    def _error_of(self, raised: BaseException) -> ToolbusError:
        """Return the error of a check whose request raised an exception."""
        if isinstance(raised, TimeoutError):
            return self._failed(self._late())
        if isinstance(raised, ToolbusError):
            return self._failed(raised)
        self._breaker.abandoned()
        fields = {"guard": self.name, "error": type(raised).__name__}
        log.error("guard.service_error", extra=fields)  # a traceback could contain content
        return ToolbusError("Internal error of the guard; see the executor log.")

    def _failed(self, error: ToolbusError) -> ToolbusError:
        """Count a failure. Only an unavailable service opens the breaker, not rejected content."""
        self._breaker.failures.note(error)
        if isinstance(error, UpstreamDeadError | UpstreamTimeoutError):
            self._breaker.failed()
        else:
            self._breaker.answered(error)
        return error

    def _late(self) -> UpstreamTimeoutError:
        return UpstreamTimeoutError(
            f"The service did not respond within {self.guard.timeout:g} s, or before the call's "
            "deadline; raise the guard's 'timeout' if that is usual."
        )

    def _note(self, seconds: float) -> None:
        self._durations.observe(seconds)
        weight = LATEST if self._latency else 1.0
        self._latency += weight * (seconds - self._latency)
