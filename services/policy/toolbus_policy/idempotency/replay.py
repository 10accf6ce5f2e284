"""Replay the stored outcome of a call that was made with the same idempotency key (no I/O)."""

from hashlib import sha256
from time import time

import msgspec

from toolbus_common.access.principal import Principal
from toolbus_common.access.session_owner import holder_of
from toolbus_common.access.tool_patterns import full_name
from toolbus_common.calls.event_fields import call_fields
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
from toolbus_common.contracts.events.guards import GuardCheck, encoded_checks
from toolbus_common.crypto.canonical_json import UncanonicalError, digest_of
from toolbus_common.errors import (
    CallInProgressError,
    IdempotencyConflictError,
    OutcomeNotStoredError,
    OutcomeUnknownError,
)
from toolbus_common.mcp.result_versions import as_legacy, as_modern

RETRY_SECONDS = 1.0
# Arguments up to this size are compared as JSON values, and larger arguments as bytes.
MAX_PARSED_BYTES = 64 << 10
_OWNER, _CALL = 24, 40  # lengths of the digests in an entry's name, in hex digits

Outcome = CallResult | TaskCreated | CallError

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def entry_name_of(call: CallRequested, principal: Principal) -> str:
    """Return the name of a call's entry: digests of the owner and of the call."""
    owner = _digest(principal.customer, holder_of(call.key_digest, principal))[:_OWNER]
    return f"{owner}.{_digest(call.server, call.tool, call.idempotency_key)[:_CALL]}"


def digest_of_arguments(raw: bytes) -> str:
    """Return a digest of arguments, which is equal for equal JSON values.

    Arguments of more than `MAX_PARSED_BYTES` bytes are compared as bytes.
    """
    if len(raw) <= MAX_PARSED_BYTES:
        try:
            return digest_of(msgspec.json.decode(raw))
        except (msgspec.MsgspecError, UncanonicalError, RecursionError):
            pass
    return sha256(raw).hexdigest()


def check_outcome(
    stored: StoredOutcome, digest: str, call: CallRequested, grace: float
) -> StoredOutcome:
    """Return the first call's outcome if a call with these arguments may receive it.

    Raises:
        IdempotencyConflictError: the arguments differ.
        CallInProgressError: the first call has not ended.
        OutcomeUnknownError: the first call's outcome is missing.
        OutcomeNotStoredError: the outcome was too large to store.

    """
    first = {"firstCallId": stored.call_id}
    if stored.digest != digest:
        raise IdempotencyConflictError(
            "This idempotency key was used for a call of this tool with other arguments. Repeat "
            "the first call unchanged, or use a new key for this call.",
            **first,
        )
    if stored.stage is Stage.CLAIMED:
        if time() <= stored.deadline + grace:
            raise CallInProgressError(
                "The first call with this idempotency key has not ended yet; repeat this call "
                f"in {RETRY_SECONDS:g} s to receive its outcome.",
                **first,
                retry_after=RETRY_SECONDS,
            )
        name = full_name(call.server, call.tool)
        raise OutcomeUnknownError(
            f"The first call of '{name}' with this idempotency key was dispatched, and its outcome "
            "is missing: it may have been executed. It is not repeated: check whether it was "
            "executed; if it was not, call again with a new key.",
            **first,
        )
    if stored.stage is Stage.TOO_LARGE:
        raise OutcomeNotStoredError(
            "The first call with this idempotency key returned more than "
            f"{LARGEST_STORED >> 10} KiB, too large to store. It is not repeated: read its effect "
            "another way, or call again with a new key.",
            **first,
        )
    return stored


def replay_reply(stored: StoredOutcome, family: ProtocolFamily) -> Outcome:
    """Return a stored outcome in the form of the caller's protocol family, marked as replayed."""
    reply = decode_reply(stored.reply)
    if isinstance(reply, CallError):
        reply.error.data["replayed"] = True
        return reply
    if isinstance(reply, TaskCreated) and stored.family is not family:
        error = OutcomeNotStoredError(
            "The first call with this idempotency key became a task, which only a client of the "
            "same protocol family can follow. It is not repeated: follow the task with such a "
            "client, or use a new key.",
            firstCallId=stored.call_id,
        )
        return CallError(error)
    if not isinstance(reply, CallResult | TaskCreated):
        raise ValueError(f"A {type(reply).__name__} cannot be replayed.")  # noqa: TRY004
    members = _members(reply.body)
    if stored.family is not family:
        members = as_modern(members) if family is ProtocolFamily.MODERN else as_legacy(members)
    members["_meta"] = msgspec.Raw(_encode(_mark_replayed(members.get("_meta"))))
    return type(reply)(_encode(members))


def build_replayed(
    stored: StoredOutcome,
    call: CallRequested,
    principal: Principal,
    outcome: Outcome,
    checks: tuple[GuardCheck, ...] = (),
) -> CallReplayed:
    """Return the event of a call that received an earlier call's outcome."""
    return CallReplayed(
        id=f"{call.call_id}.replayed",
        **call_fields(call, principal.customer, principal.key),
        first=stored.call_id,
        code=outcome.error.code if isinstance(outcome, CallError) else "",
        guards=encoded_checks(checks),
    )


def _mark_replayed(meta: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    try:
        members = _members(meta) if meta is not None else {}
    except msgspec.DecodeError:  # the server's `_meta` is malformed, so clients cannot use it
        members = {}
    return {**members, REPLAYED: msgspec.Raw(b"true")}


def _digest(*parts: str) -> str:
    return sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()
