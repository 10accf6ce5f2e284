"""One deferred call: it waits for a person as a task, is run once, and keeps how it ended. Pure."""

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
    UpstreamFaultError,
)
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_policy.approvals.elicitation import refusal
from toolbus_policy.approvals.model import Approval, State

EXTENSION = "io.modelcontextprotocol/tasks"
KEPT_SECONDS = 3600.0  # how long an ended task is told of
LARGEST_BESIDE = 16 * 1024  # bytes that travel beside the arguments, and of capabilities
LARGEST_RESULT = 1 << 20
AGAIN_SECONDS = 1.0
MOST_OF_A_KEY = 100  # waiting, running and ended

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Stage(StrEnum):
    """How far a deferred call has come."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class Step(StrEnum):
    """What is to be done about one."""

    NOTHING = "nothing"
    RUN = "run"
    END = "end"
    FORGET = "forget"


class Deferred(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the bucket `tb_tasks`, under the id of its approval, which is its own.

    `call` is the request without arguments, which the approval keeps while it is open, and without
    the proof of its key, which nothing keeps. `ends` is when its present stage is over; `ending` is
    the frame it ended with. `opens_pages` until its caller has answered that it opened the page.
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
    ending: bytes = b""
    hindered: str = ""

    @property
    def name(self) -> str:
        """What its task is called; ingress seals it."""
        return DEFERRED + self.id

    @property
    def frame(self) -> CallResult | TaskCreated | CallError:
        """How it ended."""
        frame = decode_reply(self.ending)
        return (
            frame
            if isinstance(frame, CallResult | TaskCreated | CallError)
            else CallError(_unreadable())
        )


def wants_task(call: CallRequested) -> bool:
    """Whether the call's caller takes a task for it, and the call can be kept."""
    if call.method != TOOLS_CALL or call.server == BUILT_IN:  # ours goes on in its caller's name
        return False
    if len(call.extra) + len(call.capabilities) > LARGEST_BESIDE:
        return False
    if call.family is ProtocolFamily.LEGACY:
        return '"task"' in call.extra and "task" in _members(call.extra)
    return EXTENSION in _decoded(_decoded(call.capabilities).get("extensions"))


def concerns(call: CallRequested) -> bool:
    """Whether a request about a task is about one that is kept here."""
    about_one = call.method.startswith("tasks/") and DEFERRED.encode() in call.arguments
    return about_one and task_of(call) != ""


def task_of(call: CallRequested) -> str:
    """The id of the deferred call a request names; empty when it names another's task."""
    named = _decoded(msgspec.Raw(call.arguments)).get("taskId")
    told = msgspec.json.decode(named) if named is not None else ""
    ours = isinstance(told, str) and told.startswith(DEFERRED)
    return told.removeprefix(DEFERRED) if ours else ""


def deferred(
    call: CallRequested, approval: Approval, page: str, now: float, *, opens_pages: bool
) -> Deferred:
    """A call that waits from now on."""
    bare = {"key_digest": "", "reply_to": "", "arguments": b"", "progress": False, "log_level": ""}
    bare |= {"capabilities": _unasking(call.capabilities), "default_logs": False}
    return Deferred(
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
        kept_until=approval.ends + KEPT_SECONDS,
        seconds=max(1.0, call.deadline - now),
        opens_pages=opens_pages,
        call=b64encode(call.model_copy(update=bare).encode()).decode(),
    )


def revived(
    waiting: Deferred, arguments: bytes, call_id: str, reply_to: str, now: float
) -> CallRequested:
    """The call, as it is made once approved."""
    asked = CallRequested.decode(b64decode(waiting.call))
    return asked.model_copy(
        update={
            "call_id": call_id,
            "parent_id": asked.call_id,
            "reply_to": reply_to,
            "deadline": now + waiting.seconds,
            "arguments": arguments,
        }
    )


def due(waiting: Deferred, approval: Approval | None, now: float) -> Step:
    """What is to be done, with its approval as it stands; None when that is gone."""
    if waiting.stage is Stage.ENDED:
        return Step.FORGET if now >= waiting.ends else Step.NOTHING
    if waiting.stage is Stage.RUNNING:
        return Step.END if now >= waiting.ends else Step.NOTHING
    if approval is None or approval.id != waiting.id or not approval.stands(now):
        return Step.END
    if approval.state is State.PENDING or _too_soon(waiting, now):
        return Step.NOTHING
    return Step.RUN if approval.state is State.GRANTED else Step.END


def _too_soon(waiting: Deferred, now: float) -> bool:
    """Whether a call that could not be made is not to be tried again yet."""
    return bool(waiting.hindered) and now < waiting.changed_at + AGAIN_SECONDS


def why_ended(over: Deferred, approval: Approval | None) -> ToolbusError:
    """What a call ends with that was not made, or of which nothing was heard again."""
    if over.stage is Stage.RUNNING:
        return OutcomeUnknownError(
            "The approved call was made, and no answer was kept; it may or may not have happened. "
            "Look the approval up in the audit before repeating it.",
            approval=over.id,
        )
    state = approval.state if approval is not None and approval.id == over.id else State.EXPIRED
    note = approval.note if approval is not None else ""
    if state is State.REJECTED:
        return refusal(over.id, note)
    if state is State.WITHDRAWN:
        return CallCancelledError("The caller took the call back; it was not made.")
    if state is State.USED:
        return ApprovalRequiredError(
            "The same call, made again meanwhile, has used this approval.", approval=over.id
        )
    why = f" ({over.hindered})" if over.hindered else ""
    return ApprovalRequiredError(
        f"Nobody approved this call in time, or it could not be made in time{why}; it was not "
        "made. Make it again to ask anew.",
        approval=over.id,
    )


def running(waiting: Deferred, call_id: str, now: float, grace: float) -> Deferred:
    """Once it is made; nobody else makes it."""
    ends = now + waiting.seconds + grace
    return replace(waiting, stage=Stage.RUNNING, call_id=call_id, changed_at=now, ends=ends)


def extended(over: Deferred, deadline: float, grace: float) -> Deferred:
    """Return a task whose call may take longer."""
    return replace(over, ends=max(over.ends, deadline + grace))


def put_off(tried: Deferred, waiting: Deferred, why: str) -> Deferred:
    """Once it could not be made, and nothing was sent: it is as it was."""
    return replace(waiting, hindered=why, changed_at=tried.changed_at)


def page_opened(waiting: Deferred, now: float) -> Deferred:
    """Once its caller has answered that the page was opened, or that it will not be."""
    return replace(waiting, opens_pages=False, changed_at=now)


def ended(over: Deferred, ending: FinalReply | CallError, now: float) -> Deferred:
    """Once it is over."""
    frame = ending.encode()
    if len(frame) > LARGEST_RESULT:
        frame = CallError(_too_large(len(frame))).encode()
    elif not isinstance(ending, CallResult | TaskCreated | CallError):
        frame = CallError(_asked()).encode()
    kept = now + KEPT_SECONDS
    return replace(
        over, stage=Stage.ENDED, ending=frame, call="", changed_at=now, ends=kept, kept_until=kept
    )


def _unasking(capabilities: str) -> str:
    """What a caller can do, without what it could be asked: nobody waits there."""
    extensions = _decoded(msgspec.Raw(capabilities.encode())).get("extensions")
    return msgspec.json.encode({"extensions": extensions}).decode() if extensions else NOTHING


def _decoded(raw: msgspec.Raw | str | None) -> dict[str, msgspec.Raw]:
    if raw is None:
        return {}
    try:
        return _members(raw)
    except msgspec.DecodeError:
        return {}


def _too_large(size: int) -> UpstreamFaultError:
    return UpstreamFaultError(
        f"The approved call was made, and its result of {size} bytes is more than a task can keep "
        f"({LARGEST_RESULT}). Have the tool answer with less."
    )


def _asked() -> UpstreamFaultError:
    return UpstreamFaultError(
        "The approved call was made, and its server asks its caller something, which nobody waits "
        "to answer. Call this tool from a client that opens pages, and not as a task."
    )


def _unreadable() -> UpstreamFaultError:
    return UpstreamFaultError("What this task ended with cannot be read.")
