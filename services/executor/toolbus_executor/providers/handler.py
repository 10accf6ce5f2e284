"""Handler of one provider's calls. Each admitted call ends in exactly one outcome."""

import asyncio
import logging
from collections.abc import Awaitable
from time import monotonic, perf_counter, time
from typing import Any

from toolbus_common.config import Provider
from toolbus_common.contracts import CallAdmitted, CallResult, ModelUsed, ServerState
from toolbus_common.contracts.base import trusted
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import (
    CallCancelledError,
    GuardBlockedError,
    GuardFailedError,
    ModelRefusedError,
    OutcomeUnknownError,
    ToolbusError,
    UpstreamDeadError,
    UpstreamTimeoutError,
)
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.observability.tracing.call_span import executing
from toolbus_executor.calls.early_cancellations import EarlyCancellations, cancelled_early
from toolbus_executor.calls.operator_commands import reject_if_drained
from toolbus_executor.calls.outcome_reporter import OutcomeReporter
from toolbus_executor.guards.call_guards import CallGuards, unavailable
from toolbus_executor.guards.guarded_response import GuardedResponse
from toolbus_executor.guards.held_secrets import HeldSecrets
from toolbus_executor.mcp_messages.result_mapping import CallOutcome
from toolbus_executor.model_metrics import record_model_use
from toolbus_executor.providers.cache.provider_cache import ProviderCache
from toolbus_executor.providers.exchange import Exchange
from toolbus_executor.providers.http import ProviderClient
from toolbus_executor.providers.provider_errors import UNAVAILABLE
from toolbus_executor.providers.running_requests import RunningRequests
from toolbus_executor.resilience.breaker_reporter import BreakerReporter
from toolbus_executor.resilience.bulkhead import Bulkhead
from toolbus_executor.resilience.health_probe import Health
from toolbus_executor.tracing import TRACER

log = logging.getLogger(__name__)

_model_used = trusted(ModelUsed)


class ProviderHandler:
    """Handler of the requests to one provider: slots, circuit breaker, deadline, charge, outcome.

    `client` is None while the provider's secrets are unavailable; `why_not` is the reason.
    """

    def __init__(
        self, name: str, provider: Provider, events: EventPublisher, running: RunningRequests
    ) -> None:
        self.name = name
        self.breaker = BreakerReporter(name, events)
        self.outcomes = OutcomeReporter(name, events, self.breaker.failures)
        # The limit is fixed: the duration of a request depends on the length of its response.
        self.bulkhead = Bulkhead(name, provider.concurrency, provider.concurrency)
        self.health = Health(provider.probe, self.breaker, lambda: not self.bulkhead.in_flight)
        self.client: ProviderClient | None = None
        self.cache: ProviderCache | None = None
        self.guards: CallGuards | None = None
        self.secrets: HeldSecrets | None = None  # that no request may contain
        self.why_not = "its API keys have not been read yet"
        self.is_served = False  # calls are received
        self.drained = False  # by an operator command
        self.early_cancellations = EarlyCancellations()
        self.provider = provider
        self._events = events
        self._running = running

    @executing(TRACER)
    def run(self, call: CallAdmitted, context: CallContext) -> Awaitable[Reply | None]:
        """Return the reply to one admitted call, as an awaitable."""
        return self._run(call, context)

    def status(self) -> dict[str, Any]:
        """Return the row of this provider in `toolbus status`."""
        return {
            "name": self.name,
            "kind": self.provider.kind,
            "state": self._state.value,
            "version": "",
            "tools": len(self.provider.models),
            "breaker": self.breaker.circuit.state.value,
            "in_flight": self.bulkhead.in_flight,
            "waiting": self.bulkhead.waiting,
            "slots": self.bulkhead.slots,
            "failures": self.breaker.failures.recent(),
            "probe": self.health.latest,
            "drained": self.drained,
            "paused_keys": self.client.keys.paused(monotonic()) if self.client else [],
            "last_failure": self.breaker.failures.last or ("" if self.client else self.why_not),
        }

    @property
    def _state(self) -> ServerState:
        if not self.is_served:
            return ServerState.CONNECTING
        return ServerState.FAILED if self.client is None else ServerState.READY

    async def _run(self, call: CallAdmitted, context: CallContext) -> Reply:
        """Run a call, in a task that the caller can cancel, and report its outcome."""
        began = perf_counter()
        early = self.early_cancellations
        if early.cancelled_at and early.take(call.call_id):
            return await self.outcomes.failed(call, cancelled_early(), began)
        guarded = None
        if call.guards:
            if self.guards is None:
                return await self.outcomes.failed(call, unavailable(call), began)
            context = guarded = GuardedResponse(self.guards, call, context, self.secrets)
        exchange = Exchange(self.provider, self.name, call, context)
        self._running.begin(call.call_id)
        try:
            if guarded is not None:
                await guarded.check_sent()
            body = await (self.in_slot(exchange) if self.cache is None else self._body(exchange))
            if guarded is not None:
                body = await guarded.finished(body)
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - logged
            error = _error_of(call, raised, cancelled=self._running.end(call.call_id))
            if guarded is not None:
                error = await guarded.error(error)
                self.outcomes.checks[call.call_id] = guarded.checks
            return await self._failed(exchange, error, began)
        self._running.end(call.call_id)
        parts = exchange.parts
        if guarded is not None:
            parts, self.outcomes.checks[call.call_id] = guarded.parts, guarded.checks
        reply, took = CallResult(body, parts), perf_counter() - began
        outcome = CallOutcome(reply, is_error=False, kept=exchange.streamed, charge=exchange.charge)
        self.outcomes.completed(call, outcome, took)
        exchange.end_span(self.publish_usage(exchange, began, took, cut=False))
        await exchange.report_charge(exchange.charge)
        if call.claim is not None and not exchange.streamed:
            await self.outcomes.store(call, call.claim, reply)
        return reply

    async def _body(self, exchange: Exchange) -> bytes:
        """Return the body of the reply, from the cache or from the provider."""
        cache = self.cache
        if cache is None or not exchange.call.cache:
            return await self.in_slot(exchange)
        if self.drained:
            reject_if_drained(exchange.call)
        return await cache.run(exchange, self.in_slot)

    async def in_slot(self, exchange: Exchange) -> bytes:
        """Wait for a concurrency slot, and send the request. Return the body of the reply.

        Raises `ToolbusError`.
        """
        if self.drained:
            reject_if_drained(exchange.call)
        seconds = exchange.call.deadline - time()
        if not self.bulkhead.try_enter():
            try:
                await self.bulkhead.enter(max(seconds, 0.0))
            except TimeoutError as error:
                raise self._no_slot_in_time() from error
        try:
            if exchange.call.deadline <= time():
                raise self._no_slot_in_time()
            if self.client is None:
                raise UpstreamDeadError(
                    f"The provider '{self.name}' cannot be called now: {self.why_not}", sent=False
                )
            exchange.prepare()
            await exchange.report_bound()
            return await self._attempt(exchange, self.client)
        finally:
            self.bulkhead.leave()

    async def _attempt(self, exchange: Exchange, client: ProviderClient) -> bytes:
        """Send the request, and count the result for the circuit breaker.

        Other HTTP errors than those of `UNAVAILABLE` count as successes: many servers answer an
        invalid request with 500, and a caller must not open the breaker.
        """
        self.breaker.admit()
        began = monotonic()
        try:
            body = await exchange.run(client)
        except TimeoutError as error:
            self.breaker.failed()
            raise UpstreamTimeoutError(
                f"The provider '{self.name}' sent no further data in time, so the request failed "
                f"after {monotonic() - began:.3g} s. Retry, or raise the provider's 'timeout' "
                f"({self.provider.timeout:g} s)."
            ) from error
        except UpstreamDeadError:
            self.breaker.failed()
            raise
        except ModelRefusedError as error:
            if error.data["status"] in UNAVAILABLE:
                reason = f"The upstream returned HTTP {error.data['status']}."
                self.breaker.failures.note(UpstreamDeadError(reason))
                self.breaker.failed()
            else:
                self.breaker.answered(error)
            raise
        except ToolbusError as error:
            self.breaker.answered(error)
            raise
        except BaseException:  # without a result, so that the probe is still available
            self.breaker.abandoned()
            raise
        self.breaker.succeeded()
        return body

    async def _failed(self, exchange: Exchange, error: ToolbusError, began: float) -> Reply:
        """Report a failure. Return the reply after the parts of the stream that have arrived."""
        exchange.note_cut(error)
        charge = exchange.charge_of(error)
        if not exchange.was_sent:
            error.data.setdefault("sent", False)
        used = None
        if exchange.has_usage:
            used = self.publish_usage(exchange, began, perf_counter() - began, cut=True)
        exchange.end_span(used, error.code)
        reply = await self.outcomes.failed(exchange.call, error, began, charge)
        await exchange.report_charge(charge)
        if exchange.stream is not None:
            if isinstance(error, CallCancelledError | GuardBlockedError | GuardFailedError):
                exchange.stream.discard()
            else:
                await exchange.stream.flush()
        return reply

    def publish_usage(
        self, exchange: Exchange, began: float, took: float, *, cut: bool
    ) -> ModelUsed:
        """Publish the event about the tokens of a request, and return it."""
        fields = exchange.event_fields(began, cut=cut)
        used = _model_used(**fields, latency_us=int(took * 1e6))
        self._events.publish(used)
        record_model_use(used)
        return used

    def _no_slot_in_time(self) -> UpstreamTimeoutError:
        return UpstreamTimeoutError(
            f"The provider '{self.name}' was too busy: no concurrency slot was free before the "
            "deadline. Retry later.",
            sent=False,
        )


def _error_of(call: CallAdmitted, raised: BaseException, *, cancelled: bool) -> ToolbusError:
    """Return the error of a call that raised an exception. `cancelled` means by the caller."""
    if isinstance(raised, ToolbusError):
        return raised
    if not isinstance(raised, asyncio.CancelledError):
        log.error("call.internal_error", extra={"call_id": call.call_id}, exc_info=raised)
        return ToolbusError("Internal error in the executor; see the executor log.")
    if cancelled:
        return CallCancelledError(
            "The caller cancelled the request to the model; it may have been processed and "
            "charged. Check the audit log before repeating it."
        )
    return OutcomeUnknownError(
        "The executor stopped during the request to the model; it may have been processed. Check "
        "the audit log before repeating it."
    )
