"""Calls with an idempotency key on a real bus, with two replicas of policy."""

import asyncio
import json
from typing import Any

import pytest

from harness.clients.bus_operator import key
from harness.services.approval_tasks import MODERN, approval_of, created_task, final_state
from harness.services.policy_replicas import (
    OWN,
    PAGES,
    SECRET,
    PolicyReplicas,
    declared,
    last_event,
    required,
)
from harness.waits import until, until_async
from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.calls.outcome_store import LARGEST_STORED, OutcomeStore, ReturnedResult
from toolbus_common.config import Budget, Period
from toolbus_common.contracts import (
    REPLAYED,
    CallAdmitted,
    CallError,
    CallReplayed,
    CallResult,
    FinalReply,
    InputRequired,
    Stage,
)
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import (
    BudgetExceededError,
    BusDownError,
    CallInProgressError,
    ExecutorDownError,
    IdempotencyConflictError,
    OutcomeNotStoredError,
    OutcomeUnknownError,
    RateExceededError,
    ToolbusError,
    UpstreamDeadError,
    UpstreamTimeoutError,
)
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import OUTCOMES, TASKS
from toolbus_policy.idempotency.claims import new_claim
from toolbus_policy.idempotency.replay import entry_name_of

ONCE: dict[str, Any] = {"tool": "read", "idempotency_key": "order-17"}


class Executor:
    """The executor of these tests: returns the configured reply, and stores the outcome."""

    def __init__(self, policy: PolicyReplicas, outcomes: OutcomeStore) -> None:
        self._outcomes = outcomes
        self.reply: ReturnedResult | None = None
        self.sent = True
        self.may_end = asyncio.Event()
        self.may_end.set()
        policy.ends = self._end

    async def _end(self, call: CallAdmitted, _context: CallContext) -> Reply:
        await self.may_end.wait()
        result = self.reply or CallResult(call.arguments)
        if call.claim is not None:
            await self._outcomes.end(call, call.claim, result, sent=self.sent)
        return result


@pytest.fixture
async def executor(policy: PolicyReplicas) -> Executor:
    return await executor_of(policy)


async def executor_of(policy: PolicyReplicas) -> Executor:
    bucket = await policy.executor.bucket(OUTCOMES)
    return Executor(policy, OutcomeStore(bucket, policy.executor.spawn))


def was_replayed(result: FinalReply) -> bool:
    assert isinstance(result, CallResult)
    return bool(json.loads(result.body).get("_meta", {}).get(REPLAYED))


@pytest.mark.usefixtures("executor")
async def test_a_repeated_call_gets_the_outcome_of_the_first(policy: PolicyReplicas) -> None:
    first = await policy.request(**ONCE)
    assert not was_replayed(first)
    for _ in range(6):
        again = await policy.request(**ONCE)
        assert was_replayed(again)
        assert json.loads(again.body)["page"] == 7
    assert len(policy.reached) == 1
    assert isinstance(await policy.request("read"), CallResult), "without a key nothing is replayed"
    assert len(policy.reached) == 2


async def test_one_of_fifty_concurrent_calls_runs_and_all_get_its_outcome(
    policy: PolicyReplicas, executor: Executor
) -> None:
    executor.may_end.clear()

    async def outcome() -> Any:
        return await until_async(lambda: _outcome_unless_running(policy), "the outcome", 60)

    asking = [asyncio.ensure_future(outcome()) for _ in range(50)]
    await until(lambda: policy.reached, "one of them runs")
    assert await _refused(policy, CallInProgressError), "the others are rejected for now"
    executor.may_end.set()
    ends = await asyncio.gather(*asking)
    assert sum(not was_replayed(end) for end in ends) == 1
    assert len(policy.reached) == 1


async def _outcome_unless_running(policy: PolicyReplicas) -> FinalReply | None:
    try:
        return await policy.request(**ONCE, seconds=60)
    except CallInProgressError:
        return None


async def _refused(policy: PolicyReplicas, why: type[ToolbusError], **given: Any) -> bool:
    return await policy.refuses(why, **{**ONCE, **given})


@pytest.mark.usefixtures("executor")
async def test_a_claim_whose_write_was_not_acknowledged_is_withdrawn(
    policy: PolicyReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = Bucket.swap
    lost: list[int | None] = []

    async def written(bucket: Bucket, name: str, value: bytes, last: int) -> int | None:
        revision = await swap(bucket, name, value, last)
        if bucket._name == OUTCOMES and not lost:
            lost.append(revision)
            raise BusDownError("no acknowledgement")
        return revision

    monkeypatch.setattr(Bucket, "swap", written)
    assert await _refused(policy, BusDownError)
    assert lost != [None]
    first = await until_async(lambda: _outcome_unless_running(policy), "the outcome", 60)
    assert not was_replayed(first)
    assert was_replayed(await policy.request(**ONCE))
    assert len(policy.reached) == 1


@pytest.mark.usefixtures("executor")
async def test_changed_arguments_need_another_key_and_each_caller_has_its_own_keys(
    policy: PolicyReplicas,
) -> None:
    await policy.request(**ONCE)
    with pytest.raises(IdempotencyConflictError):
        await policy.request(**ONCE, arguments={"page": 8})
    assert not was_replayed(await policy.request(**ONCE, secret=OWN, arguments={"page": 8}))
    other = {**ONCE, "idempotency_key": "order-18"}
    assert not was_replayed(await policy.request(**other, arguments={"page": 8}))
    assert len(policy.reached) == 3


async def test_a_dispatched_failure_is_replayed_and_another_one_is_not(
    policy: PolicyReplicas, executor: Executor
) -> None:
    executor.reply, executor.sent = CallError(UpstreamDeadError("refused")), False
    for _ in range(2):
        with pytest.raises(UpstreamDeadError) as caught:
            await policy.request(**ONCE)
        assert "replayed" not in caught.value.data
    executor.reply, executor.sent = CallError(UpstreamTimeoutError("late")), True
    for again in (False, True, True):
        with pytest.raises(UpstreamTimeoutError) as late:
            await policy.request(**ONCE)
        assert late.value.data.get("replayed", False) is again
    assert len(policy.reached) == 3


async def test_an_input_request_uses_no_key_and_the_final_reply_does(
    policy: PolicyReplicas, executor: Executor
) -> None:
    executor.reply = InputRequired(b'{"resultType":"input_required"}')
    for _ in range(2):
        assert isinstance(await policy.request(**ONCE), InputRequired)
    executor.reply = None
    extra = json.dumps({"inputResponses": {}})
    assert not was_replayed(await policy.request(**ONCE, extra=extra))
    assert was_replayed(await policy.request(**ONCE, extra=extra))
    assert was_replayed(await policy.request(**ONCE))
    assert len(policy.reached) == 3


async def test_a_result_too_large_to_store_is_not_requested_again(
    policy: PolicyReplicas, executor: Executor
) -> None:
    executor.reply = CallResult(b'{"content":"%b"}' % (b"x" * LARGEST_STORED))
    assert isinstance(await policy.request(**ONCE), CallResult)
    with pytest.raises(OutcomeNotStoredError):
        await policy.request(**ONCE)
    assert len(policy.reached) == 1


async def test_a_rejected_call_did_not_run_and_a_replayed_call_is_not_charged(
    start_policy: Any,
) -> None:
    # So that one replica shows that a configuration is in effect.
    async with start_policy(replicas=1) as policy:
        await executor_of(policy)
        limited = declared(budgets=(Budget(calls=1, per=Period.DAY),))
        await policy.declare(limited)
        await until_async(lambda: _refused(policy, BudgetExceededError, idempotency_key=""), "it")
        before = len(policy.reached)
        with pytest.raises(BudgetExceededError):
            await policy.request(**ONCE)
        await policy.declare(declared())
        first = await until_async(lambda: _unless_refused(policy), "no limit")
        assert not was_replayed(first)
        await policy.declare(limited)
        await until_async(lambda: _refused(policy, BudgetExceededError, idempotency_key=""), "it")
        assert was_replayed(await policy.request(**ONCE))
        assert [call.claim is None for call in policy.reached[before:]].count(False) == 1


async def _unless_refused(policy: PolicyReplicas) -> FinalReply | None:
    try:
        return await policy.request(**ONCE)
    except BudgetExceededError:
        return None


@pytest.mark.usefixtures("executor")
async def test_an_approval_is_needed_for_the_call_and_not_for_its_repetitions(
    policy: PolicyReplicas,
) -> None:
    burn = {**ONCE, "tool": "burn"}
    assert isinstance(await policy.request(**burn, capabilities=PAGES), InputRequired)
    approval = await required(policy, **burn)
    assert await required(policy, **burn) == approval, "nothing ran: the key is free"
    await policy.approve(approval)
    assert not was_replayed(await policy.request(**burn))
    for _ in range(4):
        assert was_replayed(await policy.request(**burn))
    assert len(policy.reached) == 1


@pytest.mark.usefixtures("executor")
async def test_a_call_without_an_executor_frees_its_key(policy: PolicyReplicas) -> None:
    await policy.executor.calls.leave(CallAdmitted, "*")
    await policy.executor.bus.settled()
    for _ in range(2):
        with pytest.raises(ExecutorDownError):
            await policy.request(**ONCE)
    await policy.executor.calls.serve(CallAdmitted, "*", policy.ends, "executor")
    await policy.executor.bus.settled()
    assert not was_replayed(await policy.request(**ONCE))


async def test_a_call_without_an_outcome_is_not_repeated(start_policy: Any) -> None:
    async with start_policy(OUTCOME_GRACE="0") as policy:

        async def never(_call: CallAdmitted, _context: CallContext) -> None:
            """End without a reply."""

        policy.ends = never
        with pytest.raises(OutcomeUnknownError):
            await policy.request(**ONCE, seconds=4.0)
        first = policy.reached[0].call_id
        await until_async(lambda: _refused(policy, OutcomeUnknownError), "the deadline has passed")
        with pytest.raises(OutcomeUnknownError, match="It is not repeated") as caught:
            await policy.request(**ONCE)
        assert caught.value.data["firstCallId"] == first
        assert len(policy.reached) == 1


async def test_a_caller_cannot_fill_the_bucket(start_policy: Any) -> None:
    async with start_policy(MAX_OUTCOMES="2") as policy:
        await executor_of(policy)
        for number in range(2):
            await policy.request("read", idempotency_key=f"{number}")

        async def full() -> bool:
            """Return whether both replicas know of the limit."""
            asking = [
                _refused(policy, RateExceededError, idempotency_key=f"more-{number}")
                for number in range(12)
            ]
            return all(await asyncio.gather(*asking))

        await until_async(full, "the bound")
        assert was_replayed(await policy.request("read", idempotency_key="0"))
        assert isinstance(await policy.request("read"), CallResult)
        own = await policy.request("read", idempotency_key="0", secret=OWN)
        assert not was_replayed(own)


@pytest.mark.usefixtures("executor")
async def test_calls_without_a_key_use_no_bucket(policy: PolicyReplicas, operator: Bus) -> None:
    for _ in range(3):
        await policy.request("read")
    assert [call.claim for call in policy.reached] == [None] * 3
    stream = await operator.client.jetstream().stream_info(f"KV_{OUTCOMES}")
    assert stream.state.last_seq == 0
    await policy.request(**ONCE)
    stream = await operator.client.jetstream().stream_info(f"KV_{OUTCOMES}")
    assert (stream.state.messages, stream.state.last_seq) == (1, 2), "a claim, and its outcome"


@pytest.mark.usefixtures("executor")
async def test_a_revoked_grant_ends_the_replay_of_its_outcomes(policy: PolicyReplicas) -> None:
    await policy.request(**ONCE)
    changed = declared()
    keys = {**changed.keys, "bot": key(SECRET, "docs__burn")}
    await policy.declare(changed.model_copy(update={"keys": keys}))

    async def unknown() -> bool:
        try:
            await policy.request(**ONCE)
        except ToolbusError as error:
            return error.code == "unknown_tool"
        return False

    await until_async(unknown, "the tool is no longer granted")
    assert len(policy.reached) == 1


@pytest.mark.usefixtures("executor")
async def test_a_repetition_is_an_event_that_names_the_first_call(
    policy: PolicyReplicas, operator: Bus
) -> None:
    await policy.request(**ONCE)
    await policy.request(**ONCE)
    result = await until_async(lambda: last_event(operator, CallReplayed.NAME), "the event")
    event = CallReplayed.decode(result)
    assert (event.first, event.key, event.tool) == (policy.reached[0].call_id, "bot", "read")
    assert event.call_id != event.first


# -- calls that wait for approval as tasks ---------------------------------------------------------

BURN: dict[str, Any] = {**MODERN, "idempotency_key": "burn-7"}


@pytest.mark.usefixtures("executor")
async def test_a_call_that_waited_as_a_task_is_replayed_with_its_outcome(
    policy: PolicyReplicas,
) -> None:
    task = await created_task(policy, **BURN)
    assert await created_task(policy, **BURN) == task, "the same task while it waits"
    await policy.approve(approval_of(task))
    assert (await final_state(policy, task))["result"] == {"page": 7}
    for _ in range(4):
        again = await policy.request(**BURN)
        assert was_replayed(again)
        assert json.loads(again.body)["page"] == 7
    with pytest.raises(IdempotencyConflictError):
        await policy.request(**BURN, arguments={"page": 8})
    assert len(policy.reached) == 1


async def test_an_approved_task_whose_key_is_in_use_waits_for_that_outcome(
    policy: PolicyReplicas, operator: Bus
) -> None:
    call = policy.call(**BURN)
    entry = entry_name_of(call, ConfigSnapshot.of(declared()).principal("bot"))
    outcomes = await policy.executor.bucket(OUTCOMES)
    task = await created_task(policy, **BURN)
    freed = await (await operator.bucket(OUTCOMES)).get(entry)
    assert freed is not None, "the claim of the call until it became a task"
    claim = new_claim(call)
    records = policy.records(OUTCOMES)
    sealed = records.seal(entry, claim.encode())
    revision = await outcomes.swap(entry, sealed, freed.revision)
    assert revision is not None
    await policy.approve(approval_of(task))

    async def put_off() -> bool:
        return any(b"has not ended yet" in each for each in await policy.kept(TASKS))

    await until_async(put_off, "an attempt while the key is in use")
    message = CallResult(b'{"page":"of the other call"}').encode()
    over = claim.model_copy(update={"stage": Stage.ENDED, "reply": message})
    assert await outcomes.swap(entry, records.seal(entry, over.encode()), revision) is not None
    assert (await final_state(policy, task))["result"]["page"] == "of the other call"
    assert policy.reached == []
