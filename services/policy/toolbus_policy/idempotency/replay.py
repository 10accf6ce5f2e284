"""What a repeated call is told, from what is kept of the first one. Pure."""

from hashlib import sha256
from time import time

import msgspec

from toolbus_common.access.principal import Principal
from toolbus_common.access.session_owner import holder_of
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.calls.event_fields import about_call
from toolbus_common.calls.outcome_store import LARGEST_STORED
from toolbus_common.contracts import (
    REPLAYED,
    CallError,
    CallReplayed,
    CallRequested,
    CallResult,
    ProtocolFamily,
    Stage,
    StoredOutcome,
    TaskCreated,
    decode_reply,
)
from toolbus_common.crypto.canonical_json import UncanonicalError, digest_of
from toolbus_common.errors import (
    CallUnderWayError,
    IdempotencyConflictError,
    OutcomeNotKeptError,
    OutcomeUnknownError,
)
from toolbus_common.mcp.result_versions import as_legacy, as_modern

RETRY_SECONDS = 1.0
LARGEST_READ = 64 << 10  # bytes of arguments that are compared as values, not as bytes
_OWNER, _CALL = 24, 40  # hex digits of an entry's name

Told = CallResult | TaskCreated | CallError

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def entry_of(call: CallRequested, principal: Principal) -> str:
    """The entry of a call: whose it is, then which; nothing of either can be read from it."""
    owner = _digest(principal.customer, holder_of(call.key_digest, principal))[:_OWNER]
    return f"{owner}.{_digest(call.server, call.tool, call.idempotency_key)[:_CALL]}"


def digest_of_arguments(raw: bytes) -> str:
    """Equal JSON values have equal digests, as far as reading them takes no long time."""
    if len(raw) <= LARGEST_READ:
        try:
            return digest_of(msgspec.json.decode(raw))
        except (msgspec.MsgspecError, UncanonicalError, RecursionError):
            pass
    return sha256(raw).hexdigest()


def weighed(kept: StoredOutcome, digest: str, call: CallRequested, grace: float) -> StoredOutcome:
    """The first call's outcome, if a call with these arguments may be told it.

    Raises:
        IdempotencyConflictError, CallUnderWayError, OutcomeUnknownError, OutcomeNotKeptError: if
            not, and why.

    """
    first = {"firstCallId": kept.call_id}
    if kept.digest != digest:
        raise IdempotencyConflictError(
            "This idempotency key was used for a call of this tool with other arguments. Repeat "
            "that call as it was, or use a new key for this one.",
            **first,
        )
    if kept.stage is Stage.CLAIMED:
        if time() <= kept.deadline + grace:
            raise CallUnderWayError(
                "The first call with this idempotency key has not ended yet; repeat this one "
                f"in {RETRY_SECONDS:g} s to be told its outcome.",
                **first,
                retry_after=RETRY_SECONDS,
            )
        name = full_name(call.server, call.tool)
        raise OutcomeUnknownError(
            f"The first call of {name} with this idempotency key was handed over and its outcome "
            "never came: it may have happened. It is not made again: find out whether it did, "
            "and if it did not, call again with a new key.",
            **first,
        )
    if kept.stage is Stage.TOO_LARGE:
        raise OutcomeNotKeptError(
            "The first call with this idempotency key ended, in a result of more than "
            f"{LARGEST_STORED >> 10} KiB, too large to store. It is not repeated: read what it did "
            "another way, or call again with a new key.",
            **first,
        )
    return kept


def replayed(kept: StoredOutcome, family: ProtocolFamily) -> Told:
    """A kept outcome in the form of the family of who asks now, marked as what it is."""
    frame = decode_reply(kept.reply)
    if isinstance(frame, CallError):
        frame.error.data["replayed"] = True
        return frame
    if isinstance(frame, TaskCreated) and kept.family is not family:
        error = OutcomeNotKeptError(
            "The first call with this idempotency key became a task, which only a client of its "
            "own family can follow. It is not made again: follow the task there, or use a new key.",
            firstCallId=kept.call_id,
        )
        return CallError(error)
    if not isinstance(frame, CallResult | TaskCreated):
        raise ValueError(f"no outcome: {type(frame).__name__}")  # noqa: TRY004 - it is of its value
    members = _members(frame.body)
    if kept.family is not family:
        members = as_modern(members) if family is ProtocolFamily.MODERN else as_legacy(members)
    members["_meta"] = msgspec.Raw(_encode(_marked(members.get("_meta"))))
    return type(frame)(_encode(members))


def event_of(
    kept: StoredOutcome, call: CallRequested, principal: Principal, told: Told
) -> CallReplayed:
    """The event of a repeated call that was told an earlier one's outcome."""
    return CallReplayed(
        id=f"{call.call_id}.replayed",
        **about_call(call, principal.customer, principal.key),
        first=kept.call_id,
        code=told.error.code if isinstance(told, CallError) else "",
    )


def _marked(meta: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    try:
        members = _members(meta) if meta is not None else {}
    except msgspec.DecodeError:  # a server's nonsense, which no client can want
        members = {}
    return {**members, REPLAYED: msgspec.Raw(b"true")}


def _digest(*parts: str) -> str:
    return sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()
