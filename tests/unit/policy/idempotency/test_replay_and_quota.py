"""Replay of a repeated call from the first call's stored outcome, and the quota of outcomes."""

import json
from time import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.builders.calls import admitted_call, requested_call
from harness.clients.bus_operator import key
from toolbus_codemode.sandbox.argument_binding import NotBoundError, bound
from toolbus_codemode.sandbox.protocol import IDEMPOTENCY as ARGUMENT
from toolbus_codemode.sandbox.protocol import Tool
from toolbus_common.access.principal import Principal, principal_of
from toolbus_common.calls.bucket_sizes import Size
from toolbus_common.calls.idempotency_key import LONGEST, validated_key
from toolbus_common.calls.outcome_store import LARGEST_STORED, ended
from toolbus_common.config import Configuration
from toolbus_common.contracts import (
    REPLAYED,
    CallAdmitted,
    CallError,
    CallRequested,
    CallResult,
    FinalReply,
    InputRequired,
    OutcomeClaim,
    ProtocolFamily,
    Stage,
    StoredOutcome,
    TaskCreated,
)
from toolbus_common.errors import (
    CallInProgressError,
    IdempotencyConflictError,
    InvalidError,
    OutcomeNotStoredError,
    OutcomeUnknownError,
    OverloadedError,
    RateExceededError,
    UpstreamTimeoutError,
)
from toolbus_common.nats.topology import DAY
from toolbus_policy.idempotency.quota import OutcomeQuota
from toolbus_policy.idempotency.replay import (
    check_outcome,
    digest_of_arguments,
    entry_name_of,
    replay_reply,
)

CLAIM = OutcomeClaim(name="owner.call", revision=7, digest="same")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def call(**given: Any) -> CallRequested:
    own = {"call_id": "second", "tool": "burn", "idempotency_key": "k", "deadline": time() + 30}
    return requested_call(**{**own, **given})


def admitted() -> CallAdmitted:
    return admitted_call(call_id="first", tool="burn", customer="default", deadline=time() + 30)


def kept(
    stage: Stage = Stage.ENDED, result: FinalReply | CallError | None = None, **more: Any
) -> StoredOutcome:
    given = {"deadline": time(), "family": ProtocolFamily.MODERN, "digest": "same", **more}
    return StoredOutcome(
        call_id="first", stage=stage, reply=result.encode() if result else b"", **given
    )


@given(JSON, st.randoms())
def test_equal_values_are_equal_arguments_in_any_spelling(value: Any, any_: Any) -> None:
    def shuffled(part: Any) -> Any:
        if isinstance(part, dict):
            items = [(name, shuffled(inner)) for name, inner in part.items()]
            any_.shuffle(items)
            return dict(items)
        return [shuffled(inner) for inner in part] if isinstance(part, list) else part

    one = json.dumps({"x": value}).encode()
    other = json.dumps({"x": shuffled(value)}, indent=1).encode()
    assert digest_of_arguments(one) == digest_of_arguments(other)
    assert digest_of_arguments(one) != digest_of_arguments(json.dumps({"y": value}).encode())


@pytest.mark.parametrize(
    "raw",
    [b"{", b'{"a":"' + b"x" * (64 << 10) + b'"}', b"[" * 200 + b"]" * 200, b'{"a":"\\ud800"}'],
)
def test_unparsed_arguments_are_compared_as_bytes(raw: bytes) -> None:
    assert digest_of_arguments(raw) == digest_of_arguments(bytes(raw))
    assert digest_of_arguments(raw) != digest_of_arguments(raw + b" ")


def test_a_key_belongs_to_one_caller_one_server_and_one_tool() -> None:
    declared = Configuration(keys={name: key(f"tbk_{name}_secret") for name in ("bot", "own")})
    bot, own = (principal(name, declared) for name in declared.keys)
    names = {
        entry_name_of(call(), bot),
        entry_name_of(call(), own),
        entry_name_of(call(server="mail"), bot),
        entry_name_of(call(tool="read"), bot),
        entry_name_of(call(idempotency_key="other"), bot),
    }
    assert len(names) == 5
    assert entry_name_of(call(), bot) == entry_name_of(
        call(call_id="third", family=ProtocolFamily.LEGACY), bot
    )
    assert len({name.partition(".")[0] for name in names}) == 2, "one name prefix for each caller"


def principal(name: str, declared: Configuration) -> Principal:
    return principal_of(name, declared.keys[name], declared)


def test_an_ended_call_is_replayed_and_other_arguments_are_rejected() -> None:
    result = kept(result=CallResult(b"{}"))
    assert check_outcome(result, "same", call(), 5) is result
    with pytest.raises(IdempotencyConflictError, match="other arguments") as caught:
        check_outcome(result, "different", call(), 5)
    assert caught.value.data["firstCallId"] == "first"


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.FREE])
def test_other_arguments_are_rejected_at_every_stage_of_the_first_call(stage: Stage) -> None:
    with pytest.raises(IdempotencyConflictError):
        check_outcome(kept(stage), "different", call(), 5)


def test_a_claim_is_running_until_its_deadline_then_unknown() -> None:
    with pytest.raises(CallInProgressError) as caught:
        check_outcome(kept(Stage.CLAIMED), "same", call(), 60)
    assert caught.value.data["retry_after"] > 0
    with pytest.raises(OutcomeUnknownError, match="It is not repeated") as unknown:
        check_outcome(kept(Stage.CLAIMED, deadline=time() - 61), "same", call(), 60)
    assert unknown.value.data["firstCallId"] == "first"


def test_a_result_that_was_too_large_is_reported() -> None:
    large = ended(admitted(), CLAIM, CallResult(b"x" * LARGEST_STORED), sent=True)
    assert (large.stage, large.reply) == (Stage.TOO_LARGE, b"")
    with pytest.raises(OutcomeNotStoredError, match="256 KiB"):
        check_outcome(large, "same", call(), 5)


@pytest.mark.parametrize(
    ("result", "sent", "stage"),
    [
        (CallResult(b"{}"), True, Stage.ENDED),
        (TaskCreated(b"{}"), True, Stage.ENDED),
        (CallError(UpstreamTimeoutError("late")), True, Stage.ENDED),
        (CallError(UpstreamTimeoutError("busy")), False, Stage.FREE),
        (InputRequired(b"{}"), True, Stage.FREE),
    ],
)
def test_only_the_final_outcome_of_a_sent_call_is_stored(
    result: FinalReply | CallError,
    sent: bool,  # noqa: FBT001
    stage: Stage,
) -> None:
    outcome = ended(admitted(), CLAIM, result, sent=sent)
    assert (outcome.stage, outcome.call_id, outcome.digest) == (stage, "first", "same")
    assert bool(outcome.reply) is (stage is Stage.ENDED)


def test_a_result_is_replayed_in_the_callers_protocol_family() -> None:
    body = {"resultType": "complete", "content": [], "structuredContent": [1], "_meta": {"a": 1}}
    modern = kept(result=CallResult(json.dumps(body).encode()))
    marked = {**body, "_meta": {"a": 1, REPLAYED: True}}
    assert shown(modern, ProtocolFamily.MODERN) == marked
    assert shown(modern, ProtocolFamily.LEGACY) == {"content": [], "_meta": marked["_meta"]}
    legacy = kept(result=CallResult(b'{"content":[]}'), family=ProtocolFamily.LEGACY)
    assert shown(legacy, ProtocolFamily.LEGACY) == {"content": [], "_meta": {REPLAYED: True}}
    assert shown(legacy, ProtocolFamily.MODERN)["resultType"] == "complete"


def shown(outcome: StoredOutcome, family: ProtocolFamily) -> Any:
    result = replay_reply(outcome, family)
    assert isinstance(result, CallResult)
    return json.loads(result.body)


def test_an_invalid_meta_is_replaced_by_the_replay_mark() -> None:
    assert shown(kept(result=CallResult(b'{"_meta":7}')), ProtocolFamily.MODERN)["_meta"] == {
        REPLAYED: True
    }


def test_a_failure_is_replayed_unchanged() -> None:
    result = replay_reply(
        kept(result=CallError(UpstreamTimeoutError("late", a=1))), ProtocolFamily.LEGACY
    )
    assert isinstance(result, CallError)
    assert isinstance(result.error, UpstreamTimeoutError)
    assert result.error.data == {"a": 1, "replayed": True}


def test_a_task_is_replayed_only_to_its_protocol_family() -> None:
    task = kept(result=TaskCreated(b'{"resultType":"task","taskId":"t"}'))
    again = replay_reply(task, ProtocolFamily.MODERN)
    assert isinstance(again, TaskCreated)
    assert json.loads(again.body)["taskId"] == "t"
    other = replay_reply(task, ProtocolFamily.LEGACY)
    assert isinstance(other, CallError)
    assert isinstance(other.error, OutcomeNotStoredError)


@pytest.mark.parametrize("result", ["", "x" * (LONGEST + 1), 7, ["k"], {}, True])
def test_an_invalid_idempotency_key_is_rejected(result: Any) -> None:
    with pytest.raises(InvalidError, match="1 to 255"):
        validated_key(result)
    assert validated_key("x" * LONGEST) == "x" * LONGEST
    assert validated_key(None) == ""


def test_the_outcomes_and_bytes_of_a_caller_are_limited() -> None:
    quota = OutcomeQuota(maximum=2, max_bytes=100)
    quota.sizes.apply_change(Size("bot.a", 10, time()))
    quota.check("bot.b", "bot")
    quota.sizes.apply_change(Size("bot.b", 10, time()))
    with pytest.raises(RateExceededError, match="'key:bot' has stored 2"):
        quota.check("bot.c", "bot")
    quota.check("bot.b", "bot")  # a stored outcome may be requested again
    quota.check("own.c", "own")
    quota.sizes.apply_change(Size("own.c", 100, time()))
    with pytest.raises(RateExceededError):
        quota.check("own.d", "own")
    quota.sizes.apply_change(Size("own.c", 99, time()))  # replaced, not added
    quota.check("own.d", "own")


def test_the_outcomes_of_all_callers_are_limited() -> None:
    quota = OutcomeQuota(maximum=2, max_bytes=100, max_total=1)
    quota.sizes.apply_change(Size("bot.a", 10, time()))
    quota.check("bot.a", "bot")
    with pytest.raises(OverloadedError, match="not dispatched"):
        quota.check("own.a", "own")


def test_an_outcome_older_than_a_day_no_longer_counts() -> None:
    quota = OutcomeQuota(maximum=1, max_bytes=100)
    quota.sizes.apply_change(Size("bot.a", 10, time() - DAY - 1))
    quota.check("bot.b", "bot")


def test_in_a_program_every_tool_accepts_an_idempotency_key_and_no_other_extra() -> None:
    tool = Tool("say", ("text",), 1)
    assert bound("one", tool, ("x",), {ARGUMENT: "k"}) == {"text": "x", ARGUMENT: "k"}
    with pytest.raises(NotBoundError):
        bound("one", tool, ("x",), {"idempotency_key": "k"})
