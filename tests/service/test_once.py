"""Calls with an idempotency key on a real bus: two replicas of policy, and one call of each."""

import asyncio
import json
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from harness.clients.bus_operator import key
from harness.services.approval_tasks import MODERN, approval_of, created_task, final_state
from harness.services.policy_replicas import OWN, PAGES, SECRET, PolicyReplicas, declared, required
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
from toolbus_common.contracts.replies import ReplyChannel
from toolbus_common.errors import (
    BudgetExceededError,
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
from toolbus_common.nats.topology import EVENTS, OUTCOMES, TASKS
from toolbus_policy.idempotency.claims import new_claim
from toolbus_policy.idempotency.replay import entry_name_of

ONCE: dict[str, Any] = {"tool": "read", "idempotency_key": "order-17"}


class Executor:
    """How the executor of these tests ends calls: so, once it may, and kept as a real one does."""

    def __init__(self, made: PolicyReplicas, outcomes: OutcomeStore) -> None:
        self._outcomes = outcomes
        self.told: ReturnedResult | None = None
        self.sent = True
        self.may_end = asyncio.Event()
        self.may_end.set()
        made.ends = self._end

    async def _end(self, call: CallAdmitted, reply: ReplyChannel) -> None:
        await self.may_end.wait()
        result = self.told or CallResult(call.arguments)
        if call.claim is not None:
            await self._outcomes.end(call, call.claim, result, sent=self.sent)
        await reply.send(result)


@pytest.fixture
async def ending(at_work: PolicyReplicas) -> Executor:
    return await executor_of(at_work)


async def executor_of(made: PolicyReplicas) -> Executor:
    bucket = await made.executor.bucket(OUTCOMES)
    return Executor(made, OutcomeStore(bucket, made.executor.spawn))


def was_replayed(told: FinalReply) -> bool:
    assert isinstance(told, CallResult)
    return bool(json.loads(told.body).get("_meta", {}).get(REPLAYED))


@pytest.mark.usefixtures("ending")
async def test_a_repeated_call_is_told_the_outcome_of_the_first(at_work: PolicyReplicas) -> None:
    first = await at_work.request(**ONCE)
    assert not was_replayed(first)
    for _ in range(6):
        again = await at_work.request(**ONCE)
        assert was_replayed(again)
        assert json.loads(again.body)["page"] == 7
    assert len(at_work.reached) == 1
    assert isinstance(await at_work.request("read"), CallResult), (
        "without a key nothing is repeated"
    )
    assert len(at_work.reached) == 2


async def test_of_fifty_at_once_one_is_made_and_all_are_told_its_outcome(
    at_work: PolicyReplicas, ending: Executor
) -> None:
    ending.may_end.clear()

    async def told() -> Any:
        return await until_async(lambda: _unless_under_way(at_work), "the outcome", 60)

    asking = [asyncio.ensure_future(told()) for _ in range(50)]
    await until(lambda: at_work.reached, "one of them is made")
    assert await _refused(at_work, CallInProgressError), "the others are told to come back"
    ending.may_end.set()
    ends = await asyncio.gather(*asking)
    assert sum(not was_replayed(end) for end in ends) == 1
    assert len(at_work.reached) == 1


async def _unless_under_way(made: PolicyReplicas) -> FinalReply | None:
    try:
        return await made.request(**ONCE, seconds=60)
    except CallInProgressError:
        return None


async def _refused(made: PolicyReplicas, why: type[ToolbusError], **given: Any) -> bool:
    return await made.refuses(why, **{**ONCE, **given})


@pytest.mark.usefixtures("ending")
async def test_other_arguments_need_another_key_and_another_caller_has_its_own(
    at_work: PolicyReplicas,
) -> None:
    await at_work.request(**ONCE)
    with pytest.raises(IdempotencyConflictError):
        await at_work.request(**ONCE, arguments={"page": 8})
    assert not was_replayed(await at_work.request(**ONCE, secret=OWN, arguments={"page": 8}))
    other = {**ONCE, "idempotency_key": "order-18"}
    assert not was_replayed(await at_work.request(**other, arguments={"page": 8}))
    assert len(at_work.reached) == 3


async def test_a_failure_that_was_sent_is_told_again_and_one_that_was_not_is_not(
    at_work: PolicyReplicas, ending: Executor
) -> None:
    ending.told, ending.sent = CallError(UpstreamDeadError("refused")), False
    for _ in range(2):
        with pytest.raises(UpstreamDeadError) as caught:
            await at_work.request(**ONCE)
        assert "replayed" not in caught.value.data
    ending.told, ending.sent = CallError(UpstreamTimeoutError("late")), True
    for again in (False, True, True):
        with pytest.raises(UpstreamTimeoutError) as late:
            await at_work.request(**ONCE)
        assert late.value.data.get("replayed", False) is again
    assert len(at_work.reached) == 3


async def test_a_question_takes_no_key_and_the_round_that_ends_the_call_does(
    at_work: PolicyReplicas, ending: Executor
) -> None:
    ending.told = InputRequired(b'{"resultType":"input_required"}')
    for _ in range(2):
        assert isinstance(await at_work.request(**ONCE), InputRequired)
    ending.told = None
    extra = json.dumps({"inputResponses": {}})
    assert not was_replayed(await at_work.request(**ONCE, extra=extra))
    assert was_replayed(await at_work.request(**ONCE, extra=extra))
    assert was_replayed(await at_work.request(**ONCE))
    assert len(at_work.reached) == 3


async def test_a_result_too_large_to_be_kept_is_not_fetched_again(
    at_work: PolicyReplicas, ending: Executor
) -> None:
    ending.told = CallResult(b'{"content":"%b"}' % (b"x" * LARGEST_STORED))
    assert isinstance(await at_work.request(**ONCE), CallResult)
    with pytest.raises(OutcomeNotStoredError):
        await at_work.request(**ONCE)
    assert len(at_work.reached) == 1


async def test_what_a_limit_refused_was_not_made_and_what_was_made_is_not_charged_again(
    begin: Any,
) -> None:
    async with begin(replicas=1) as made:  # so that a declaration is known once it is seen to be
        await executor_of(made)
        limited = declared(budgets=(Budget(calls=1, per=Period.DAY),))
        await made.declare(limited)
        await until_async(lambda: _refused(made, BudgetExceededError, idempotency_key=""), "it")
        before = len(made.reached)
        with pytest.raises(BudgetExceededError):
            await made.request(**ONCE)
        await made.declare(declared())
        first = await until_async(lambda: _unless_refused(made), "no limit")
        assert not was_replayed(first)
        await made.declare(limited)
        await until_async(lambda: _refused(made, BudgetExceededError, idempotency_key=""), "it")
        assert was_replayed(await made.request(**ONCE))
        assert [call.claim is None for call in made.reached[before:]].count(False) == 1


async def _unless_refused(made: PolicyReplicas) -> FinalReply | None:
    try:
        return await made.request(**ONCE)
    except BudgetExceededError:
        return None


@pytest.mark.usefixtures("ending")
async def test_a_person_is_asked_about_the_call_and_not_about_its_repetitions(
    at_work: PolicyReplicas,
) -> None:
    burn = {**ONCE, "tool": "burn"}
    assert isinstance(await at_work.request(**burn, capabilities=PAGES), InputRequired)
    approval = await required(at_work, **burn)
    assert await required(at_work, **burn) == approval, "nothing was made: the key is free"
    await at_work.approve(approval)
    assert not was_replayed(await at_work.request(**burn))
    for _ in range(4):
        assert was_replayed(await at_work.request(**burn))
    assert len(at_work.reached) == 1


@pytest.mark.usefixtures("ending")
async def test_a_call_that_nobody_took_lets_its_key_be_used_again(at_work: PolicyReplicas) -> None:
    await at_work.executor.calls.leave(CallAdmitted, "*")
    await at_work.executor.bus.settled()
    for _ in range(2):
        with pytest.raises(ExecutorDownError):
            await at_work.request(**ONCE)
    await at_work.executor.calls.serve(CallAdmitted, "*", at_work.ends, "executor")
    await at_work.executor.bus.settled()
    assert not was_replayed(await at_work.request(**ONCE))


async def test_a_call_whose_outcome_never_came_is_not_made_again(begin: Any) -> None:
    async with begin(REAP_GRACE="0") as made:

        async def never(_call: CallAdmitted, _reply: ReplyChannel) -> None:
            """Die with the call."""

        made.ends = never
        with pytest.raises(OutcomeUnknownError):
            await made.request(**ONCE, seconds=4.0)
        first = made.reached[0].call_id
        await until_async(lambda: _refused(made, OutcomeUnknownError), "its time is over")
        with pytest.raises(OutcomeUnknownError, match="It is not repeated") as caught:
            await made.request(**ONCE)
        assert caught.value.data["firstCallId"] == first
        assert len(made.reached) == 1


async def test_a_caller_cannot_fill_the_bucket(begin: Any) -> None:
    async with begin(MOST_OUTCOMES="2") as made:
        await executor_of(made)
        for number in range(2):
            await made.request("read", idempotency_key=f"{number}")

        async def full() -> bool:
            """Whether both replicas have heard, whichever is asked."""
            asking = [
                _refused(made, RateExceededError, idempotency_key=f"more-{number}")
                for number in range(12)
            ]
            return all(await asyncio.gather(*asking))

        await until_async(full, "the bound")
        assert was_replayed(await made.request("read", idempotency_key="0"))
        assert isinstance(await made.request("read"), CallResult)
        own = await made.request("read", idempotency_key="0", secret=OWN)
        assert not was_replayed(own)


@pytest.mark.usefixtures("ending")
async def test_calls_without_a_key_touch_no_bucket(at_work: PolicyReplicas, operator: Bus) -> None:
    for _ in range(3):
        await at_work.request("read")
    assert [call.claim for call in at_work.reached] == [None] * 3
    kept = await operator.client.jetstream().stream_info(f"KV_{OUTCOMES}")
    assert kept.state.last_seq == 0
    await at_work.request(**ONCE)
    kept = await operator.client.jetstream().stream_info(f"KV_{OUTCOMES}")
    assert (kept.state.messages, kept.state.last_seq) == (1, 2), "a claim, and what became of it"


@pytest.mark.usefixtures("ending")
async def test_a_revoked_key_is_told_nothing_of_what_it_did(at_work: PolicyReplicas) -> None:
    await at_work.request(**ONCE)
    changed = declared()
    keys = {**changed.keys, "bot": key(SECRET, "docs__burn")}
    await at_work.declare(changed.model_copy(update={"keys": keys}))

    async def unknown() -> bool:
        try:
            await at_work.request(**ONCE)
        except ToolbusError as error:
            return error.code == "unknown_tool"
        return False

    await until_async(unknown, "the tool is granted no more")
    assert len(at_work.reached) == 1


@pytest.mark.usefixtures("ending")
async def test_a_repetition_is_an_event_that_names_the_first_call(
    at_work: PolicyReplicas, operator: Bus
) -> None:
    await at_work.request(**ONCE)
    await at_work.request(**ONCE)
    result = await until_async(lambda: _last(operator, CallReplayed.NAME), "the event")
    event = CallReplayed.decode(result)
    assert (event.first, event.key, event.tool) == (at_work.reached[0].call_id, "bot", "read")
    assert event.call_id != event.first


async def _last(operator: Bus, event: str) -> bytes:
    try:
        subject = f"tb.event.{event}.acme"
        return (await operator.client.jetstream().get_last_msg(EVENTS, subject)).data or b""
    except NotFoundError:
        return b""


# -- calls that wait for a person as tasks --------------------------------------------------------

BURN: dict[str, Any] = {**MODERN, "idempotency_key": "burn-7"}


@pytest.mark.usefixtures("ending")
async def test_a_call_that_waited_as_a_task_is_repeated_with_its_outcome(
    at_work: PolicyReplicas,
) -> None:
    task = await created_task(at_work, **BURN)
    assert await created_task(at_work, **BURN) == task, "while it waits"
    await at_work.approve(approval_of(task))
    assert (await final_state(at_work, task))["result"] == {"page": 7}
    for _ in range(4):
        again = await at_work.request(**BURN)
        assert was_replayed(again)
        assert json.loads(again.body)["page"] == 7
    with pytest.raises(IdempotencyConflictError):
        await at_work.request(**BURN, arguments={"page": 8})
    assert len(at_work.reached) == 1


async def test_an_approved_task_whose_key_is_in_use_waits_and_is_told_that_outcome(
    at_work: PolicyReplicas, operator: Bus
) -> None:
    call = at_work.call(**BURN)
    entry = entry_name_of(call, ConfigSnapshot.of(declared()).principal("bot"))
    outcomes = await at_work.executor.bucket(OUTCOMES)
    task = await created_task(at_work, **BURN)
    freed = await (await operator.bucket(OUTCOMES)).get(entry)
    assert freed is not None, "what the call claimed until it became a task"
    under_way = new_claim(call)
    records = at_work.records(OUTCOMES)
    sealed = records.seal(entry, under_way.encode())
    revision = await outcomes.swap(entry, sealed, freed.revision)
    assert revision is not None
    await at_work.approve(approval_of(task))

    async def put_off() -> bool:
        return any(b"has not ended yet" in each for each in await at_work.kept(TASKS))

    await until_async(put_off, "an attempt while the key is in use")
    frame = CallResult(b'{"page":"of the other call"}').encode()
    over = under_way.model_copy(update={"stage": Stage.ENDED, "reply": frame})
    assert await outcomes.swap(entry, records.seal(entry, over.encode()), revision) is not None
    assert (await final_state(at_work, task))["result"]["page"] == "of the other call"
    assert at_work.reached == []
