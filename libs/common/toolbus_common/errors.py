"""All errors of Toolbus. Services exchange their codes; ingress converts them to client errors.

class                             code                    retryable
* ToolbusError                    internal
  + RefusedError                  refused
    - UnauthorizedError           unauthorized
    - UnknownToolError            unknown_tool
    - UnknownModelError           unknown_model
    - BudgetExceededError         budget_exceeded
    - RunBudgetExceededError      run_budget_exceeded
    - RateExceededError           rate_exceeded           yes
    - LoopDetectedError           loop_detected
    - RuleDeniedError             rule_denied
    - GuardBlockedError           guard_blocked
    - FlowRefusedError            flow_refused
    - ApprovalRequiredError       approval_required
    - ApprovalRejectedError       approval_rejected
    - ForbiddenError              forbidden
    - InsufficientScopeError      insufficient_scope
    - UnknownApprovalError        unknown_approval
    - UnknownEntryError           unknown_entry
    - ConflictError               conflict
    - StaleError                  stale
    - UnconditionalError          unconditional
    - IdempotencyConflictError    idempotency_conflict
    - CallInProgressError         call_in_progress        yes
    - OutcomeNotStoredError       outcome_not_stored
  + UnavailableError              unavailable             yes
    - BusDownError                bus_down                yes
      . EventsFullError           events_full             yes
    - PolicyDownError             policy_down             yes
    - ExecutorDownError           executor_down           yes
    - LedgerDownError             ledger_down             yes
    - LedgerRebuildingError       ledger_rebuilding       yes
    - OverloadedError             overloaded              yes
    - GuardFailedError            guard_failed            yes
  + UpstreamError                 upstream_failed
    - UpstreamTimeoutError        upstream_timeout
    - UpstreamDeadError           upstream_dead           yes
    - BreakerOpenError            breaker_open            yes
    - ServerDrainedError          server_drained          yes
    - UpstreamInvalidError        upstream_invalid
    - UpstreamRefusedError        upstream_refused
    - ModelRefusedError           model_refused
    - CallCancelledError          cancelled
  + OutcomeUnknownError           outcome_unknown
  + InvalidError                  invalid
    - InvalidArgumentsError       invalid_arguments
    - InvalidConfigurationError   invalid_configuration

A message states the failure, its cause and the fix, with names in quotes.
"""

from typing import Any, ClassVar, Self


class ToolbusError(Exception):
    """A failure with a code for programs and a message for people.

    `code` never changes. If `retryable` is true, the same request can succeed later. `data`
    contains the values that a client needs to react (level, limit, reset time), but never a secret.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, reason: str, **data: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.data = data

    def as_data(self) -> dict[str, Any]:
        """Return the wire form of the error."""
        return {"code": self.code, "reason": self.reason, "data": self.data}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "ToolbusError":
        """Return the error of a wire form. An unknown code becomes `ToolbusError`."""
        known = _by_code().get(data["code"], ToolbusError)
        return known(data["reason"], **data.get("data", {}))


class RefusedError(ToolbusError):
    """The request was denied. Nothing was executed."""

    code = "refused"


class UnauthorizedError(RefusedError):
    """The request has no key, or its key is unknown, revoked or expired."""

    code = "unauthorized"


_KINDS = {"prompts": "prompt", "resources": "resource", "completion": "reference"}


class UnknownToolError(RefusedError):
    """The tool, prompt or resource does not exist, or is hidden from this key.

    Both cases have the same message, so that a key cannot discover hidden names.
    """

    code = "unknown_tool"

    @classmethod
    def named(cls, name: str, method: str = "tools/call") -> Self:
        """Return the error for an unknown name.

        The message is equal for all methods of one kind.
        """
        kind = _KINDS.get(method.partition("/")[0], "tool")
        return cls(f"Unknown {kind}: {name}")


class BudgetExceededError(RefusedError):
    """The budget of a level is spent until the period ends."""

    code = "budget_exceeded"


class RunBudgetExceededError(RefusedError):
    """The call costs more than the remaining budget of its program. Nothing was sent."""

    code = "run_budget_exceeded"


class RateExceededError(RefusedError):
    """The rate limit of a level is exceeded: too many calls in its period."""

    code = "rate_exceeded"
    retryable = True


class LoopDetectedError(RefusedError):
    """The same tool was called with the same arguments too often in one agent run."""

    code = "loop_detected"


class RuleDeniedError(RefusedError):
    """A rule denies this call of a granted tool. `rule` in the data is the name of the rule."""

    code = "rule_denied"


class GuardBlockedError(RefusedError):
    """A guard found forbidden content. If it was a result, the server has executed the call."""

    code = "guard_blocked"


class FlowRefusedError(RefusedError):
    """The run has read private and untrusted data, so it must not write outside."""

    code = "flow_refused"


class ApprovalRequiredError(RefusedError):
    """The call waits for approval. Repeat the same call after it is approved.

    `cause` in the data is the level or rule that requires approval.
    """

    code = "approval_required"


class ApprovalRejectedError(RefusedError):
    """An operator rejected this call. The message contains the operator's reason."""

    code = "approval_rejected"


class ForbiddenError(RefusedError):
    """The key is valid, but has no right to this operation."""

    code = "forbidden"


class InsufficientScopeError(RefusedError):
    """The role permits the operation, but the scope of the access token does not.

    `scope` in the data is the scope that a token needs.
    """

    code = "insufficient_scope"


class UnknownApprovalError(RefusedError):
    """No approval with this id is pending. The id is unknown, decided, used or expired."""

    code = "unknown_approval"


class UnknownEntryError(RefusedError):
    """The configuration has no entry with this name."""

    code = "unknown_entry"


class ConflictError(RefusedError):
    """The name already exists, or concurrent writes kept conflicting. Nothing was changed."""

    code = "conflict"


class StaleError(RefusedError):
    """The configuration has changed since the client read it. Nothing was changed."""

    code = "stale"


class UnconditionalError(RefusedError):
    """Replacing the whole configuration requires `If-Match`."""

    code = "unconditional"


class IdempotencyConflictError(RefusedError):
    """The idempotency key was already used with other arguments."""

    code = "idempotency_conflict"


class CallInProgressError(RefusedError):
    """The first call with this idempotency key is still running. Retry later."""

    code = "call_in_progress"
    retryable = True


class OutcomeNotStoredError(RefusedError):
    """The first call with this idempotency key ended, but its outcome is not stored."""

    code = "outcome_not_stored"


class UnavailableError(ToolbusError):
    """A part of Toolbus is unavailable. Nothing was sent."""

    code = "unavailable"
    retryable = True


class BusDownError(UnavailableError):
    """NATS cannot be reached, so no call can be recorded."""

    code = "bus_down"


class EventsFullError(BusDownError):
    """The stream of events has reached its maximum size, so no call can be recorded."""

    code = "events_full"


class PolicyDownError(UnavailableError):
    """No policy replica is available."""

    code = "policy_down"


class ExecutorDownError(UnavailableError):
    """No executor replica is available."""

    code = "executor_down"


class LedgerDownError(UnavailableError):
    """The budget counters cannot be read, so no charge is permitted."""

    code = "ledger_down"


class LedgerRebuildingError(UnavailableError):
    """The budget counters were lost. No charge is permitted until they are rebuilt."""

    code = "ledger_rebuilding"


class OverloadedError(UnavailableError):
    """A service has too much work in progress. Nothing was sent."""

    code = "overloaded"


class GuardFailedError(UnavailableError):
    """A guard that fails closed could not check the content."""

    code = "guard_failed"


class UpstreamError(ToolbusError):
    """The upstream server of the tool failed."""

    code = "upstream_failed"


class UpstreamTimeoutError(UpstreamError):
    """The upstream server did not reply before the call's deadline."""

    code = "upstream_timeout"


class UpstreamDeadError(UpstreamError):
    """The upstream server refused or reset the connection, or exited."""

    code = "upstream_dead"
    retryable = True


class BreakerOpenError(UpstreamError):
    """The circuit breaker of the server is open. Calls fail until a probe succeeds."""

    code = "breaker_open"
    retryable = True


class ServerDrainedError(UpstreamError):
    """An operator drained the server. Nothing was sent."""

    code = "server_drained"
    retryable = True


class UpstreamInvalidError(UpstreamError):
    """The reply of the upstream server is malformed or exceeds a limit."""

    code = "upstream_invalid"


class UpstreamRefusedError(UpstreamError):
    """The server replied with a JSON-RPC error, which the caller receives unchanged.

    `data` contains `upstream_code` (an integer) and, if the server sent data, `upstream_data`.
    """

    code = "upstream_refused"


class ModelRefusedError(UpstreamError):
    """A model provider replied with an HTTP error.

    `data` contains `status` (the HTTP status), `type` (the provider's name for the error, if it
    sent one) and, if the provider named a pause, `retry_after` (seconds).
    """

    code = "model_refused"


class UnknownModelError(RefusedError):
    """The model does not exist, has no price, or is hidden from this key."""

    code = "unknown_model"


class CallCancelledError(UpstreamError):
    """The caller disconnected or cancelled the call. It may have been executed."""

    code = "cancelled"


class OutcomeUnknownError(ToolbusError):
    """The call was sent, but there is no reply. It may have been executed."""

    code = "outcome_unknown"


class InvalidError(ToolbusError):
    """The request or the configuration is invalid. The message contains the reason."""

    code = "invalid"


class InvalidArgumentsError(InvalidError):
    """The arguments do not match the schema of the tool. Nothing was sent."""

    code = "invalid_arguments"


class InvalidConfigurationError(InvalidError):
    """The configuration is invalid. `errors` in the data lists paths and messages."""

    code = "invalid_configuration"


def _by_code() -> dict[str, type[ToolbusError]]:
    """Return all error classes by code.

    The result is not cached, because errors on the bus are rare.
    """
    found: dict[str, type[ToolbusError]] = {}
    waiting: list[type[ToolbusError]] = [ToolbusError]
    while waiting:
        cls = waiting.pop()
        found.setdefault(cls.code, cls)  # a subclass without its own code is sent as its parent
        waiting.extend(cls.__subclasses__())
    return found
