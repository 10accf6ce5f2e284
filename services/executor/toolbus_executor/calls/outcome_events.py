"""Events about the outcome of a call."""

from hashlib import sha256
from time import time

import msgspec

from toolbus_common.calls.event_fields import outcome_fields
from toolbus_common.contracts import (
    CallAdmitted,
    CallFailed,
    CallResult,
    InputRequired,
    TaskCreated,
)
from toolbus_common.contracts.events.base import subject_of
from toolbus_common.contracts.events.encoded import EncodedCompletion
from toolbus_common.errors import ModelRefusedError, ToolbusError, UpstreamRefusedError
from toolbus_common.observability.trace_context import trace_id
from toolbus_common.privacy.content_policy import recorded, recorded_words
from toolbus_executor.calls.charging import charge_of, charge_of_failure
from toolbus_executor.mcp_messages.result_mapping import CallOutcome

MAX_HEADS = 5_000
_RESULT_TYPES = {CallResult: "complete", InputRequired: "input_required", TaskCreated: "task"}
_SHARED = ("customer", "key", "server", "tool", "method")
_SUBJECT = subject_of(EncodedCompletion.NAME, "")
_encode = msgspec.json.Encoder().encode


class CompletionEvents:
    """The `call.completed` events of one server.

    The fields of a tool and a key are encoded once; each event appends its own fields.
    """

    def __init__(self) -> None:
        self._heads: dict[tuple[str, ...], bytes] = {}

    def build(
        self,
        call: CallAdmitted,
        outcome: CallOutcome,
        seconds: float,
        misfit: str = "",
        guards: str = "",
    ) -> EncodedCompletion:
        """Return the event of a call that the server answered.

        The event always has the digest of the result. It has the result's text and the user only if
        the content of results is recorded. `guards` are the checks of the result, encoded.
        """
        reply, whole = outcome.reply, len(outcome.reply.body) + outcome.kept
        result = recorded(reply.body, call.result_content) if call.result_content else ""
        charge = outcome.charge
        own_fields = {
            "id": f"{call.call_id}.completed",
            "at": time(),
            "call_id": call.call_id,
            "parent_id": call.parent_id,
            "trace_id": trace_id(call.traceparent),
            "charge": charge_of(call, reply, outcome.kept) if charge is None else charge,
            "reserved": call.reserved,
            "latency_us": int(seconds * 1e6),
            "misfit": misfit,
            "result_type": _RESULT_TYPES[type(reply)],
            "is_error": outcome.is_error,
            "result_bytes": whole,
            "cached": outcome.cached,
            "sent_bytes": len(reply.body),
            "whole_bytes": whole + outcome.left_out,
            "result_digest": sha256(reply.body).hexdigest(),
            "user": call.user if result else "",
            "result": result,
        }
        if guards:
            own_fields["guards"] = guards
        return EncodedCompletion(
            call.customer,
            f"{_SUBJECT}{call.customer}",
            self._head(call) + _encode(own_fields)[1:],
            not result,
        )

    def _head(self, call: CallAdmitted) -> bytes:
        """Return the encoded fields that all calls of a key and a tool share."""
        shared = call.customer, call.key, call.server, call.tool, call.method
        head = self._heads.get(shared)
        if head is None:
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            fields = dict(zip(_SHARED, shared, strict=True))
            head = self._heads[shared] = _encode(fields)[:-1] + b","
        return head


def failed(
    call: CallAdmitted,
    error: ToolbusError,
    seconds: float,
    misfit: str = "",
    guards: str = "",
    *,
    sent: bool,
    charge: int | None = None,
) -> CallFailed:
    """Return the event about a call without a result.

    A call that was not dispatched (`sent` is false) costs 0. `charge` is the charge of a dispatched
    call; if `charge` is None, it is computed from the error.
    """
    if charge is None:
        charge = charge_of_failure(call, error)
    return CallFailed(
        id=f"{call.call_id}.failed",
        **outcome_fields(call),
        charge=charge if sent else 0,
        latency_us=int(seconds * 1e6),
        code=error.code,
        reason=_recorded_reason(call, error),
        sent=sent,
        misfit=misfit,
        guards=guards,
    )


def _recorded_reason(call: CallAdmitted, error: ToolbusError) -> str:
    """Return the reason for the event.

    An error text of the upstream is recorded only if the content of results is recorded.
    """
    if not isinstance(error, UpstreamRefusedError | ModelRefusedError):
        return error.reason
    recorded = recorded_words(error.reason, call.result_content)
    if isinstance(error, ModelRefusedError):
        return recorded or f"The provider returned HTTP {error.data.get('status')}."
    number = error.data.get("upstream_code", "none")
    return recorded or f"The server returned JSON-RPC error {number}."
