"""A deferred call: it waits for approval as a task, runs once, and stores its result (no I/O)."""

from base64 import b64decode, b64encode
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from toolbus_common.contracts import (
    DEFERRED,
    NOTHING,
    TOOLS_CALL,
    CallError,
    CallRequested,
    CallResult,
    FinalReply,
    ProtocolFamily,
    TaskCreated,
)
from toolbus_common.contracts.replies import decode_reply
from toolbus_common.errors import (
    ApprovalRequiredError,
    CallCancelledError,
    OutcomeUnknownError,
    ToolbusError,
    UpstreamInvalidError,
)
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_policy.approvals.elicitation import rejection_error
from toolbus_policy.approvals.model import Approval, State

EXTENSION = "io.modelcontextprotocol/tasks"
RETENTION_SECONDS = 3600.0  # how long an ended task can be read
MAX_METADATA_BYTES = 16 * 1024  # of request fields and capabilities together, without the arguments
MAX_RESULT_BYTES = 1 << 20
RETRY_SECONDS = 1.0
MAX_TASKS_PER_KEY = 100  # in all stages together

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Stage(StrEnum):
    """Stage of a deferred call."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class Step(StrEnum):
    """The next action for a deferred call."""

    NOTHING = "nothing"
    RUN = "run"
    END = "end"
    FORGET = "forget"


class DeferredCall(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the bucket `tb_tasks`. `id` is also the id of the approval.

    `call` is the request without its arguments, which the approval stores while it is open, and
    without the key's digest, which is never stored. `ends` is when the present stage ends; `result`
    is the final reply. `opens_pages` is true until the caller has responded to the page.
    """

    id: str
    binding: str
    key: str
    server: str
    tool: str
    family: ProtocolFamily
    page: str
    requested_at: float
    changed_at: float
    ends: float
    kept_until: float
    seconds: float
    stage: Stage = Stage.WAITING
    opens_pages: bool = False
    call: str = ""
    call_id: str = ""
    result: bytes = b""
    retry_reason: str = ""

    @property
    def name(self) -> str:
        """The task's id for clients; ingress seals it."""
        return DEFERRED + self.id

    @property
    def reply(self) -> CallResult | TaskCreated | CallError:
        """The final reply."""
        reply = decode_reply(self.result)
        return (
            reply
            if isinstance(reply, CallResult | TaskCreated | CallError)
            else CallError(_unreadable_error())
        )


def wants_task(call: CallRequested) -> bool:
    """Return whether the caller accepts a task for this call, and the call can be stored."""
    # A built-in tool needs its caller's key.
    if call.method != TOOLS_CALL or call.server == BUILT_IN:
        return False
    if len(call.extra) + len(call.capabilities) > MAX_METADATA_BYTES:
        return False
    if call.family is ProtocolFamily.LEGACY:
        return '"task"' in call.extra and "task" in _members(call.extra)
    return EXTENSION in _decode_members(_decode_members(call.capabilities).get("extensions"))


def is_deferred_task_request(call: CallRequested) -> bool:
    """Return whether a request is about a task that is stored here."""
    about_one = call.method.startswith("tasks/") and DEFERRED.encode() in call.arguments
    return about_one and task_id_of(call) != ""


def task_id_of(call: CallRequested) -> str:
    """Return the id of the deferred call that a request names; empty for another kind of task."""
    named = _decode_members(msgspec.Raw(call.arguments)).get("taskId")
    name = msgspec.json.decode(named) if named is not None else ""
    own = isinstance(name, str) and name.startswith(DEFERRED)
    return name.removeprefix(DEFERRED) if own else ""


def new_deferred_call(
    call: CallRequested, approval: Approval, page: str, now: float, *, opens_pages: bool
) -> DeferredCall:
    """Return a deferred call that starts to wait now."""
    bare = {"key_digest": "", "reply_to": "", "arguments": b"", "progress": False, "log_level": ""}
    bare |= {"capabilities": _without_client_requests(call.capabilities), "default_logs": False}
    return DeferredCall(
        id=approval.id,
        binding=approval.binding,
        key=approval.key,
        server=call.server,
        tool=call.tool,
        family=call.family,
        page=page,
        requested_at=now,
        changed_at=now,
        ends=approval.ends,
        kept_until=approval.ends + RETENTION_SECONDS,
        seconds=max(1.0, call.deadline - now),
        opens_pages=opens_pages,
        call=b64encode(call.model_copy(update=bare).encode()).decode(),
    )


def rebuild_request(
    waiting: DeferredCall, arguments: bytes, call_id: str, reply_to: str, now: float
) -> CallRequested:
    """Return the request of an approved call, ready to be admitted."""
    request = CallRequested.decode(b64decode(waiting.call))
    return request.model_copy(
        update={
            "call_id": call_id,
            "parent_id": request.call_id,
            "reply_to": reply_to,
            "deadline": now + waiting.seconds,
            "arguments": arguments,
        }
    )


def next_step(waiting: DeferredCall, approval: Approval | None, now: float) -> Step:
    """Return the next action. `approval` is None if the task's approval no longer exists."""
    if waiting.stage is Stage.ENDED:
        return Step.FORGET if now >= waiting.ends else Step.NOTHING
    if waiting.stage is Stage.RUNNING:
        return Step.END if now >= waiting.ends else Step.NOTHING
    if approval is None or approval.id != waiting.id or not approval.is_current(now):
        return Step.END
    if approval.state is State.PENDING or _too_soon(waiting, now):
        return Step.NOTHING
    return Step.RUN if approval.state is State.GRANTED else Step.END


def _too_soon(waiting: DeferredCall, now: float) -> bool:
    """Return whether a call that could not be dispatched must wait before the next attempt."""
    return bool(waiting.retry_reason) and now < waiting.changed_at + RETRY_SECONDS


def end_error(task: DeferredCall, approval: Approval | None) -> ToolbusError:
    """Return the error of a call that was not made, or whose outcome is missing."""
    if task.stage is Stage.RUNNING:
        return OutcomeUnknownError(
            "The approved call was dispatched, and its outcome is missing; it may have been "
            "executed. Check the audit log for the approval before repeating the call.",
            approval=task.id,
        )
    state = approval.state if approval is not None and approval.id == task.id else State.EXPIRED
    note = approval.note if approval is not None else ""
    if state is State.REJECTED:
        return rejection_error(task.id, note)
    if state is State.WITHDRAWN:
        return CallCancelledError("The caller cancelled the call; it was not dispatched.")
    if state is State.USED:
        return ApprovalRequiredError(
            "Another call with the same arguments used the approval, so this call was not made. "
            "Repeat the call to request approval again.",
            approval=task.id,
        )
    why = f" ({task.retry_reason})" if task.retry_reason else ""
    return ApprovalRequiredError(
        f"This call was not approved or could not be dispatched in time{why}; it was not made. "
        "Repeat the call to request approval again.",
        approval=task.id,
    )


def running(waiting: DeferredCall, call_id: str, now: float, grace: float) -> DeferredCall:
    """Return the task as running with this call id, so that no other replica runs it."""
    ends = now + waiting.seconds + grace
    return replace(waiting, stage=Stage.RUNNING, call_id=call_id, changed_at=now, ends=ends)


def extended(task: DeferredCall, deadline: float, grace: float) -> DeferredCall:
    """Return the task of a call whose deadline was extended."""
    return replace(task, ends=max(task.ends, deadline + grace))


def postponed(tried: DeferredCall, waiting: DeferredCall, why: str) -> DeferredCall:
    """Return the task as waiting again: the call could not be dispatched."""
    return replace(waiting, retry_reason=why, changed_at=tried.changed_at)


def page_opened(waiting: DeferredCall, now: float) -> DeferredCall:
    """Return the task after its caller responded to the request to open the page."""
    return replace(waiting, opens_pages=False, changed_at=now)


def ended(task: DeferredCall, result: FinalReply | CallError, now: float) -> DeferredCall:
    """Return the task as ended with this reply."""
    reply = result.encode()
    if len(reply) > MAX_RESULT_BYTES:
        reply = CallError(_too_large_error(len(reply))).encode()
    elif not isinstance(result, CallResult | TaskCreated | CallError):
        reply = CallError(_input_required_error()).encode()
    stored = now + RETENTION_SECONDS
    return replace(
        task,
        stage=Stage.ENDED,
        result=reply,
        call="",
        changed_at=now,
        ends=stored,
        kept_until=stored,
    )


def _without_client_requests(capabilities: str) -> str:
    """Return only the extensions, because no client is connected to receive requests."""
    extensions = _decode_members(msgspec.Raw(capabilities.encode())).get("extensions")
    return msgspec.json.encode({"extensions": extensions}).decode() if extensions else NOTHING


def _decode_members(raw: msgspec.Raw | str | None) -> dict[str, msgspec.Raw]:
    if raw is None:
        return {}
    try:
        return _members(raw)
    except msgspec.DecodeError:
        return {}


def _too_large_error(size: int) -> UpstreamInvalidError:
    return UpstreamInvalidError(
        f"The approved call was made, and its result of {size} bytes exceeds the limit of a task "
        f"({MAX_RESULT_BYTES} bytes). Configure the tool to return less."
    )


def _input_required_error() -> UpstreamInvalidError:
    return UpstreamInvalidError(
        "The approved call was made, and the server requested input. A task cannot pass this "
        "request to the client. Call this tool without a task, from a client that supports "
        "elicitation."
    )


def _unreadable_error() -> UpstreamInvalidError:
    return UpstreamInvalidError(
        "The stored result of this task cannot be decoded; the call may have been executed. Check "
        "the audit log before repeating the call."
    )
