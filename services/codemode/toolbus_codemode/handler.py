"""Handler of admitted calls of the built-in server; each gets one reply and one outcome event."""

import asyncio
import logging
from contextlib import suppress
from time import perf_counter, time
from typing import Any

import msgspec

from toolbus_codemode.agent.runs import AgentRuns
from toolbus_codemode.catalog.catalog import Catalogue
from toolbus_codemode.catalog.read_tools import answer
from toolbus_codemode.programs.program_report import ProgramReport
from toolbus_codemode.programs.repeated_failures import RepeatedFailures
from toolbus_codemode.programs.runner import Programs
from toolbus_codemode.results.checked_results import CheckedResults
from toolbus_codemode.tokens.context_savings import ContextMeter, CountedCall
from toolbus_common.access.config_snapshot import ConfigView, hash_of
from toolbus_common.access.pricing import charged
from toolbus_common.access.principal import Principal
from toolbus_common.calls.event_fields import extended, outcome_fields, result_fields
from toolbus_common.calls.outcome_store import OutcomeStore
from toolbus_common.contracts import (
    CallAdmitted,
    CallCompleted,
    CallError,
    CallFailed,
    CallResult,
    DeadlineExtended,
    ProtocolFamily,
)
from toolbus_common.contracts.agent_runs import AGENT_RUN
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import (
    CallCancelledError,
    InvalidError,
    OutcomeUnknownError,
    ToolbusError,
    UnauthorizedError,
)
from toolbus_common.mcp.builtin_server import EXECUTE, Mode
from toolbus_common.mcp.code_mode_options import decode_options
from toolbus_common.observability.tracing import Tracer
from toolbus_common.observability.tracing.call_span import executing
from toolbus_common.service.service import Service

log = logging.getLogger(__name__)

Result = tuple[dict[str, Any], bool]  # a tool's result, and whether it is an error


class ProgramHandler:
    """Handler of the calls of the built-in server."""

    def __init__(
        self,
        service: Service,
        directory: ConfigView,
        catalogue: Catalogue,
        programs: Programs,
        spending: ContextMeter,
        outcomes: OutcomeStore,
        agent_runs: AgentRuns,
    ) -> None:
        self.checked = CheckedResults()
        self._service = service
        self._outcomes = outcomes
        self._agent_runs = agent_runs
        self._spending = spending
        self._programs = programs
        self._directory = directory
        self._catalogue = catalogue
        self._running: dict[str, asyncio.Task[Any] | None] = {}
        self._revoked: set[str] = set()
        self._failures = RepeatedFailures()

    def cancel(self, call_id: str) -> None:
        """Cancel a call and all running calls of its program."""
        task = self._running.get(call_id)
        if task is not None:
            self._revoked.add(call_id)
            task.cancel()

    @executing(Tracer("codemode"))
    async def run(self, call: CallAdmitted, context: CallContext) -> Reply:
        """Run one admitted call; publish its outcome event and return its reply."""
        began = perf_counter()
        try:
            if call.method == AGENT_RUN:
                response = await self._run_agent(call, context)
                if call.guards and response.body:
                    response = CallResult(await self.checked.body(call, response.body))
                self._completed(call, response.body, began)
                return response
            result, is_error = await self._cancellable(call, context)
            if call.guards:
                result = await self.checked.result(call, result)
        except ToolbusError as error:
            return await self._fail(call, error, began)
        except asyncio.CancelledError:
            return await self._fail(call, self._why_cancelled(call), began)
        except Exception:
            log.exception("call.internal_error", extra={"call_id": call.call_id})
            inside = ToolbusError("Internal error; see the log of codemode for this call id.")
            return await self._fail(call, inside, began)
        else:
            return await self._complete(call, result, began, is_error=is_error)
        finally:
            self._revoked.discard(call.call_id)

    def _why_cancelled(self, call: CallAdmitted) -> ToolbusError:
        """Return the error of a cancelled call: its caller cancelled it, or the service stops."""
        if call.call_id not in self._revoked:
            return OutcomeUnknownError(
                "The service stopped during the call; the program may have been executed in part. "
                "Check the audit log before repeating it."
            )
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        return CallCancelledError(
            "The caller cancelled the call; the program may have been executed in part. Check the "
            "audit log before repeating it."
        )

    async def _cancellable(self, call: CallAdmitted, context: CallContext) -> Result:
        """Return the result. `cancel` can interrupt this step, but not the reply that follows."""
        self._running[call.call_id] = asyncio.current_task()
        try:
            return await self._result(call, context)
        finally:
            del self._running[call.call_id]

    async def _run_agent(self, call: CallAdmitted, context: CallContext) -> CallResult:
        """Return the response of a run. `cancel` can interrupt this step."""
        self._running[call.call_id] = asyncio.current_task()
        try:
            return await self._agent_runs.run(call, await self._known(call), context)
        finally:
            del self._running[call.call_id]

    async def _result(self, call: CallAdmitted, context: CallContext) -> Result:
        arguments = msgspec.json.decode(call.arguments)
        if not isinstance(arguments, dict):
            raise InvalidError("The arguments must be a JSON object.")
        principal = await self._known(call)
        bounds = principal.bounds.narrowed(call.restriction)
        try:
            if call.tool == EXECUTE:
                namespace = self._catalogue.namespace(bounds)
                call = await self._extended(
                    call, context, self._programs.needed_until(call, principal)
                )
                ran = await self._programs.run(call, principal, namespace, arguments)
                message = ran.text
                if ran.is_error:
                    message = self._failures.answer(call, ran.text, namespace)
                return _reported(call, text(message), ran.report), ran.is_error
            plain = decode_options(call.terms).mode is Mode.SEARCH
            response = await answer(self._catalogue, bounds, call.tool, arguments, plain=plain)
            if not plain:
                namespace = self._catalogue.namespace(bounds)
                response = self._failures.reading(call, response, namespace)
            return text(response), False
        except InvalidError as error:  # a result, because the model can correct its arguments
            if decode_options(call.terms).mode is Mode.SEARCH:
                return text(error.reason), True
            namespace = self._catalogue.namespace(bounds)
            failed = text(self._failures.answer(call, error.reason, namespace))
            return _reported(call, failed, ProgramReport()), True  # no program was started

    async def _extended(
        self, call: CallAdmitted, context: CallContext, deadline: float
    ) -> CallAdmitted:
        """Return the call with this deadline if it is later; record and report the extension."""
        if deadline <= call.deadline:
            return call
        self._service.events.publish(extended(call, deadline))
        if call.claim is not None:
            self._outcomes.extend(call, call.claim, deadline)
        await context.send(DeadlineExtended(deadline))
        return call.model_copy(update={"deadline": deadline})

    async def _known(self, call: CallAdmitted) -> Principal:
        """Return the caller; look up an access token that this replica has not received yet."""
        with suppress(UnauthorizedError):
            return self._principal(call)
        await self._directory.bearers.learn(hash_of(call.key_digest))
        return self._principal(call)

    def _principal(self, call: CallAdmitted) -> Principal:
        """Return the caller with the present grants, which can differ from those at admission."""
        found = self._directory.now.principal_for(call.key_digest, time())
        if found is None:
            raise UnauthorizedError("Invalid, revoked or expired API key.")
        return found

    async def _complete(
        self, call: CallAdmitted, result: dict[str, Any], began: float, *, is_error: bool
    ) -> CallResult:
        if call.family is ProtocolFamily.MODERN:
            result = {"resultType": "complete", **result}
        if is_error:
            result["isError"] = True
        body = msgspec.json.encode(result)
        self._completed(call, body, began, is_error=is_error)
        if call.claim is not None:
            await self._outcomes.end(call, call.claim, CallResult(body))
        # Counting takes time, so the caller receives its reply first.
        asyncio.get_running_loop().call_soon(self._count, call, result)
        return CallResult(body)

    def _completed(
        self, call: CallAdmitted, body: bytes, began: float, *, is_error: bool = False
    ) -> None:
        """Publish the completion of a call."""
        self._service.events.publish(
            CallCompleted(
                id=f"{call.call_id}.completed",
                **outcome_fields(call),
                charge=charged(call.charge, call.price, len(body)) if call.price else call.charge,
                latency_us=int((perf_counter() - began) * 1e6),
                is_error=is_error,
                result_bytes=len(body),
                sent_bytes=len(body),
                whole_bytes=len(body),
                guards=self.checked.taken(call) if call.guards else "",
                **result_fields(call, body),
            )
        )

    def _count(self, call: CallAdmitted, result: dict[str, Any]) -> None:
        """Count the call's tokens."""
        with suppress(UnauthorizedError):  # the key was revoked meanwhile
            bounds = self._principal(call).bounds.narrowed(call.restriction)
            visible = self._catalogue.namespace(bounds)
            response = result["content"][0]["text"]
            self._spending.note(CountedCall(call, response, visible, self._catalogue.whole()))

    async def _fail(self, call: CallAdmitted, error: ToolbusError, began: float) -> CallError:
        withheld = self.checked.was_executed(call)
        self._service.events.publish(
            CallFailed(
                id=f"{call.call_id}.failed",
                **outcome_fields(call),
                charge=call.charge if withheld else 0,
                latency_us=int((perf_counter() - began) * 1e6),
                code=error.code,
                reason=error.reason,
                sent=withheld,
                guards=self.checked.taken(call),
            )
        )
        if call.claim is not None:
            # Only a rejected call was certainly not executed; a program may have started.
            started = not isinstance(error, UnauthorizedError)
            await self._outcomes.end(call, call.claim, CallError(error), sent=started)
        return CallError(error)


def _reported(call: CallAdmitted, result: dict[str, Any], report: ProgramReport) -> dict[str, Any]:
    """Return the result of a program; a run of agent mode receives what the program has used."""
    of_run = call.tool == EXECUTE and decode_options(call.terms).run is not None
    return report.added(result) if of_run else result


def text(content: str) -> dict[str, Any]:
    """Return a tool result with one text."""
    return {"content": [{"type": "text", "text": content}]}
