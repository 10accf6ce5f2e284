"""The one tree of failures. A code crosses the bus; only the edge turns it into what users see.

* ToolbusError
  + RefusedError             the caller may not, or not now
    - UnauthorizedError      no key, or one that opens nothing
    - UnknownToolError       no such tool, prompt or resource, or one this key may not see
    - BudgetExceededError    a level's money or calls are spent
    - RunBudgetExceededError the program that calls has spent what it may
    - RateExceededError      too many calls in a period
    - LoopDetectedError      the same call again and again in one agent run
    - RuleDeniedError        a rule forbids this call of a tool the key may use
    - ApprovalRequiredError  the call waits for a person
    - ApprovalRejectedError  a person said no
    - ForbiddenError         the key has no right to do this
    - InsufficientScopeError its holder may, but not with this access token
    - UnknownApprovalError   nothing waits under this id, or no longer
    - UnknownEntryError      nothing of this name is declared
    - ConflictError          the name is taken, or others write all the time
    - StaleError             what was to be changed is no longer what was seen
    - UnconditionalError     a whole replacement that does not say what it saw
    - IdempotencyConflictError  the idempotency key belongs to other arguments
    - CallUnderWayError      the first call with this idempotency key has not ended
    - OutcomeNotKeptError    the first call with this idempotency key ended in what is not kept
  + UnavailableError         a part of Toolbus is down; nothing was sent
    - BusDownError
    - PolicyDownError
    - ExecutorDownError
    - LedgerDownError        the counters cannot be read, so nothing may be spent
    - LedgerRebuildingError  the counters were lost; they are made anew from the events first
    - OverloadedError        the server's own queue is full
  + UpstreamError            the server behind the tool
    - UpstreamTimeoutError
    - UpstreamDeadError      refused, reset or exited
    - BreakerOpenError
    - ServerDrainedError     an operator lets it have no calls
    - UpstreamFaultError     answered with nonsense
    - UpstreamRefusedError   answered with a JSON-RPC error of its own
    - CallCancelledError     the caller no longer wanted the answer
  + OutcomeUnknownError      the call was handed over and no answer came back
  + InvalidError             the request or the configuration is wrong
    - InvalidArgumentsError  a tool's arguments do not fit its schema; nothing was sent
    - FaultyError            it is well formed, but what it declares does not hold together
"""

from typing import Any, ClassVar, Self


class ToolbusError(Exception):
    """A failure with a code for programs and a sentence for people.

    `data` holds what a reader needs to act (level, limit, when it resets); never a secret.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, reason: str, **data: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.data = data

    def as_data(self) -> dict[str, Any]:
        """The failure as it crosses the bus."""
        return {"code": self.code, "reason": self.reason, "data": self.data}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "ToolbusError":
        """The failure as it was; a code this version does not know becomes the root class."""
        known = _by_code().get(data["code"], ToolbusError)
        return known(data["reason"], **data.get("data", {}))


class RefusedError(ToolbusError):
    """The caller may not, or not now."""

    code = "refused"


class UnauthorizedError(RefusedError):
    """No key, or one that opens nothing."""

    code = "unauthorized"


_KINDS = {"prompts": "prompt", "resources": "resource", "completion": "reference"}


class UnknownToolError(RefusedError):
    """No such tool, prompt or resource, or one this key may not see: the two are told alike."""

    code = "unknown_tool"

    @classmethod
    def named(cls, name: str, method: str = "tools/call") -> Self:
        """The sentence everything unknown gets."""
        kind = _KINDS.get(method.partition("/")[0], "tool")
        return cls(f"Unknown {kind}: {name}")


class BudgetExceededError(RefusedError):
    """A level's money or calls are spent until the period ends."""

    code = "budget_exceeded"


class RunBudgetExceededError(RefusedError):
    """The call costs more than its program may still spend; nothing was sent."""

    code = "run_budget_exceeded"


class RateExceededError(RefusedError):
    """Too many calls in a period."""

    code = "rate_exceeded"
    retryable = True


class LoopDetectedError(RefusedError):
    """The same tool with the same arguments, more often than one agent run may."""

    code = "loop_detected"


class RuleDeniedError(RefusedError):
    """A rule forbids this call of a tool the key may use; `rule` in the data names it."""

    code = "rule_denied"


class ApprovalRequiredError(RefusedError):
    """The call waits for a person; the same call goes through once it is approved.

    `cause` in the data is the level or rule that wants it.
    """

    code = "approval_required"


class ApprovalRejectedError(RefusedError):
    """A person refused this call, and said why."""

    code = "approval_rejected"


class ForbiddenError(RefusedError):
    """The key is live, but has no right to do this."""

    code = "forbidden"


class InsufficientScopeError(RefusedError):
    """The holder of the access token may, but did not let the client do this.

    `scope` in the data is what a token needs that is good for this.
    """

    code = "insufficient_scope"


class UnknownApprovalError(RefusedError):
    """Nothing waits under this id: it is unknown, decided, used or expired."""

    code = "unknown_approval"


class UnknownEntryError(RefusedError):
    """Nothing of this name is declared."""

    code = "unknown_entry"


class ConflictError(RefusedError):
    """The name is taken, or others write all the time; nothing was changed."""

    code = "conflict"


class StaleError(RefusedError):
    """The configuration is no longer the one that was seen; nothing was changed."""

    code = "stale"


class UnconditionalError(RefusedError):
    """A whole configuration may be replaced only by who says which one."""

    code = "unconditional"


class IdempotencyConflictError(RefusedError):
    """The idempotency key was used with other arguments."""

    code = "idempotency_conflict"


class CallUnderWayError(RefusedError):
    """The first call with this idempotency key has not ended; its outcome can be had later."""

    code = "call_under_way"
    retryable = True


class OutcomeNotKeptError(RefusedError):
    """The first call with this idempotency key ended, in something that is not kept."""

    code = "outcome_not_kept"


class UnavailableError(ToolbusError):
    """A part of Toolbus is down; nothing was sent."""

    code = "unavailable"
    retryable = True


class BusDownError(UnavailableError):
    """The bus cannot be reached, so no call can be recorded."""

    code = "bus_down"


class PolicyDownError(UnavailableError):
    """Nobody is there to decide."""

    code = "policy_down"


class ExecutorDownError(UnavailableError):
    """Nobody is there to call the upstream."""

    code = "executor_down"


class LedgerDownError(UnavailableError):
    """The counters cannot be read, so nothing may be spent."""

    code = "ledger_down"


class LedgerRebuildingError(UnavailableError):
    """The counters were lost, so nothing may be spent until they are made anew from the events."""

    code = "ledger_rebuilding"


class OverloadedError(UnavailableError):
    """The server's own queue is full."""

    code = "overloaded"


class UpstreamError(ToolbusError):
    """The server behind the tool failed."""

    code = "upstream_failed"


class UpstreamTimeoutError(UpstreamError):
    """The server did not answer within the call's deadline."""

    code = "upstream_timeout"


class UpstreamDeadError(UpstreamError):
    """The server refused, reset the connection, or exited."""

    code = "upstream_dead"
    retryable = True


class BreakerOpenError(UpstreamError):
    """The server failed too often; calls are refused until a probe succeeds."""

    code = "breaker_open"
    retryable = True


class ServerDrainedError(UpstreamError):
    """An operator lets the server have no new calls for now; nothing was sent."""

    code = "server_drained"
    retryable = True


class UpstreamFaultError(UpstreamError):
    """The server answered with nonsense."""

    code = "upstream_fault"


class UpstreamRefusedError(UpstreamError):
    """The server answered with a JSON-RPC error, which its caller is told as it is.

    `data` holds `upstream_code` (an integer) and, where the server said more, `upstream_data`.
    """

    code = "upstream_refused"


class CallCancelledError(UpstreamError):
    """The caller went away or took the call back; it may have happened."""

    code = "cancelled"


class OutcomeUnknownError(ToolbusError):
    """The call was handed over and no answer came back: it may or may not have happened."""

    code = "outcome_unknown"


class InvalidError(ToolbusError):
    """The request or the configuration is wrong, and says how."""

    code = "invalid"


class InvalidArgumentsError(InvalidError):
    """The arguments do not fit the tool's schema, and what to change; nothing was sent."""

    code = "invalid_arguments"


class FaultyError(InvalidError):
    """What is to be declared does not hold together; `faults` in the data say where and why."""

    code = "faulty"


def _by_code() -> dict[str, type[ToolbusError]]:
    """Every class under its code. Walked anew: failures crossing the bus are rare."""
    found: dict[str, type[ToolbusError]] = {}
    waiting: list[type[ToolbusError]] = [ToolbusError]
    while waiting:
        cls = waiting.pop()
        found.setdefault(cls.code, cls)  # a service's own subclass leaves the service as its parent
        waiting.extend(cls.__subclasses__())
    return found
