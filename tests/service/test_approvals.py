"""Approvals on a real bus, decided by two replicas of policy: once, by somebody else, in time."""

import asyncio
import json
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from harness.clients.bus_operator import key
from harness.services.policy_replicas import OWN, PAGES, SECRET, PolicyReplicas, declared, required
from harness.waits import until_async
from toolbus_common.contracts import (
    CallCancelled,
    CallResult,
    FinalReply,
    InputRequired,
)
from toolbus_common.errors import (
    ApprovalRejectedError,
    ApprovalRequiredError,
    CallCancelledError,
    InvalidError,
    OverloadedError,
    RateExceededError,
    UnauthorizedError,
    UnknownApprovalError,
    UnknownToolError,
)
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import APPROVALS, EVENTS
from toolbus_policy.approvals import service as approval_service

STATE = "state of the server's own"


def answered(asked: FinalReply, action: str = "accept") -> str:
    """What a client that opened the page comes back with."""
    assert isinstance(asked, InputRequired)
    body = json.loads(asked.body)
    answers = {name: {"action": action} for name in body["inputRequests"]}
    return json.dumps({"inputResponses": answers, "requestState": body["requestState"]})


async def test_a_call_that_needs_nobody_goes_through(at_work: PolicyReplicas) -> None:
    assert isinstance(await at_work.request("read"), CallResult)
    assert await at_work.waiting() == ()


async def test_a_call_waits_for_a_person_and_goes_through_once_approved(
    at_work: PolicyReplicas,
) -> None:
    approval = await required(at_work)
    assert await required(at_work) == approval, "asked for once, however often it is made"
    result = await at_work.the_one()
    assert (result.id, result.key, result.server, result.tool) == (approval, "bot", "docs", "burn")
    assert (result.cause, json.loads(result.arguments)) == ("key:bot", {"page": 7})
    (decided,) = (await at_work.approve(approval)).approvals
    assert (decided.state, decided.by) == ("granted", "operator:ann")
    assert isinstance(await at_work.request(), CallResult)
    assert await required(at_work) != approval, "single use"
    assert len(at_work.reached) == 1


async def test_a_decision_counts_at_once_at_every_replica(at_work: PolicyReplicas) -> None:
    for page in range(20):
        given: dict[str, Any] = {"arguments": {"page": page}}
        await at_work.approve(await required(at_work, **given))
        assert isinstance(await at_work.request(**given), CallResult)


async def test_of_many_at_once_exactly_one_uses_an_approval(at_work: PolicyReplicas) -> None:
    for round_ in range(5):
        given: dict[str, Any] = {"arguments": {"round": round_}}
        await at_work.approve(await required(at_work, **given))
        ends = await asyncio.gather(
            *(at_work.request(**given) for _ in range(12)), return_exceptions=True
        )
        assert sum(isinstance(end, CallResult) for end in ends) == 1
        others = [end for end in ends if not isinstance(end, CallResult)]
        assert {type(end) for end in others} == {ApprovalRequiredError}
    assert len(at_work.reached) == 5


@pytest.mark.parametrize(
    "other", [{"arguments": {"page": 8}}, {"arguments": {"page": "7"}}, {"secret": OWN}]
)
async def test_an_approval_is_of_no_use_to_another_call(
    at_work: PolicyReplicas, other: dict[str, Any]
) -> None:
    changed = declared()
    keys = {**changed.keys, "own": key(OWN, user="ann", approve=["docs__burn"])}
    await at_work.declare(changed.model_copy(update={"keys": keys}))
    await at_work.approve(await required(at_work))
    await until_async(lambda: _needs_a_person(at_work, OWN), "the new configuration")
    await required(at_work, **other)
    assert at_work.reached == []


async def _needs_a_person(made: PolicyReplicas, secret: str) -> bool:
    """Whether either replica says so: which one is asked is for the bus to say."""
    asking = [made.request(secret=secret, arguments={"probe": True}) for _ in range(12)]
    ends = await asyncio.gather(*asking, return_exceptions=True)
    made.reached.clear()
    return all(isinstance(end, ApprovalRequiredError) for end in ends)


async def test_a_tool_that_changed_since_is_not_the_tool_that_was_approved(begin: Any) -> None:
    async with begin(replicas=1) as made:
        approval = await required(made)
        await made.approve(approval)
        await made.offer("Burns the page, and tells your secrets.")
        await until_async(lambda: _asks_anew(made, approval), "the changed definition")
        assert made.reached == []


async def test_a_policy_that_changed_since_asks_again_and_a_budget_does_not(begin: Any) -> None:
    async with begin(replicas=1) as made:
        approval = await required(made)
        await made.declare(declared(budget={"usd": 5, "per": "day"}, deny=["docs__read"]))
        await until_async(lambda: made.refuses(UnknownToolError, "read"), "the new configuration")
        assert await required(made) != approval
        kept = await required(made)
        await made.declare(declared(budget={"usd": 6, "per": "day"}))
        await made.declare(declared(budget={"usd": 7, "per": "day"}, deny=["docs__read"]))
        assert await required(made) == kept


async def _asks_anew(made: PolicyReplicas, before: str) -> bool:
    with pytest.raises(ApprovalRequiredError) as caught:
        await made.request(arguments={"page": 7}, capabilities="{}", secret=SECRET)
    return bool(caught.value.data["approval"] != before)


async def test_a_refusal_is_told_with_its_reason_and_not_asked_again(
    at_work: PolicyReplicas,
) -> None:
    approval = await required(at_work)
    await at_work.reject(approval, "Page 7 is needed.")
    with pytest.raises(ApprovalRejectedError, match=r"Page 7 is needed\.") as caught:
        await at_work.request()
    assert caught.value.data == {"approval": approval, "note": "Page 7 is needed."}
    assert await at_work.waiting() == ()
    with pytest.raises(UnknownApprovalError, match="rejected by operator:ann"):
        await at_work.approve(approval)


async def test_a_decision_is_made_once(at_work: PolicyReplicas) -> None:
    approval = await required(at_work)
    deciding = [at_work.approve(approval), at_work.reject(approval, "No.")]
    ends = await asyncio.gather(*deciding, return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["ApprovalsReply", "UnknownApprovalError"]


async def test_what_nobody_decides_in_time_expires(begin: Any) -> None:
    async with begin(replicas=1, APPROVAL_SECONDS="0.5") as made:
        approval = await required(made)
        await until_async(lambda: _empty(made), "the end of the approval")
        with pytest.raises(UnknownApprovalError):
            await made.approve(approval)
        assert await required(made) != approval


async def test_the_end_of_an_approval_is_an_event_said_once(begin: Any, operator: Bus) -> None:
    async with begin(replicas=2, APPROVAL_SECONDS="0.3") as made:
        approval = await required(made)
        await until_async(lambda: _empty(made), "the end of the approval")
        found = await until_async(lambda: _last(operator, "approval.expired"), "the event")
        assert json.loads(found)["approval"] == approval
    stream = await operator.client.jetstream().stream_info(
        EVENTS, subjects_filter="tb.event.approval.expired.>"
    )
    assert stream.state.subjects == {"tb.event.approval.expired.acme": 1}


async def _last(operator: Bus, event: str) -> bytes:
    try:
        subject = f"tb.event.{event}.acme"
        return (await operator.client.jetstream().get_last_msg(EVENTS, subject)).data or b""
    except NotFoundError:
        return b""


async def test_a_call_refused_by_its_rate_has_not_used_its_approval(begin: Any) -> None:
    async with begin(replicas=1) as made:
        await made.declare(declared(rate={"calls": 1, "per": "day"}))
        await until_async(lambda: _out_of_rate(made), "the rate")
        approval = await required(made)
        await made.approve(approval)
        with pytest.raises(RateExceededError):
            await made.request()
        await made.declare(declared())
        await until_async(lambda: _in_rate(made), "no rate")
        made.reached.clear()
        assert isinstance(await made.request(), CallResult)
        assert len(made.reached) == 1
        assert await required(made) != approval


async def _out_of_rate(made: PolicyReplicas) -> bool:
    try:
        await made.request("read")
    except RateExceededError:
        return True
    return False


async def _in_rate(made: PolicyReplicas) -> bool:
    return not await _out_of_rate(made)


async def _empty(made: PolicyReplicas) -> bool:
    return await made.waiting() == ()


async def test_what_nobody_uses_in_time_expires(begin: Any) -> None:
    async with begin(APPROVED_SECONDS="0.3") as made:
        approval = await required(made)
        await made.approve(approval)
        await asyncio.sleep(0.4)
        assert await required(made) != approval
        assert made.reached == []


async def test_arguments_are_kept_only_while_an_approval_is_open(at_work: PolicyReplicas) -> None:
    secret = {"page": "canary-argument"}
    await at_work.approve(await required(at_work, arguments=secret))
    assert b"canary-argument" in b"".join(await at_work.kept(APPROVALS))
    await at_work.request(arguments=secret)
    approval = await required(at_work, arguments=secret)
    await at_work.reject(approval, "No.")
    assert b"canary-argument" not in b"".join(await at_work.kept(APPROVALS))


async def test_a_key_has_only_so_many_waiting(begin: Any) -> None:
    async with begin(MOST_PENDING="3") as made:
        asking = [made.request(arguments={"page": page}) for page in range(20)]
        ends = await asyncio.gather(*asking, return_exceptions=True)
        refused = [end for end in ends if isinstance(end, OverloadedError)]
        assert 3 <= 20 - len(refused) <= 6, "at most so many for each replica that asks at once"

        async def heard() -> bool:
            request = await asyncio.gather(*(made.waiting() for _ in range(12)))
            return {len(each) for each in request} == {20 - len(refused)}

        await until_async(heard, "all that waits, at whichever replica is asked")
        with pytest.raises(OverloadedError):
            await made.request(arguments={"page": "one more"})


async def test_what_nobody_could_read_is_not_put_before_anybody(at_work: PolicyReplicas) -> None:
    with pytest.raises(InvalidError, match="65536 bytes"):
        await at_work.request(arguments={"page": "x" * 70_000})
    assert await at_work.waiting() == ()


# -- clients that can open pages ----------------------------------------------------------------


async def test_a_client_that_opens_pages_is_told_which_and_waits_there(
    at_work: PolicyReplicas,
) -> None:
    request = await at_work.request(capabilities=PAGES)
    result = await at_work.the_one()
    assert isinstance(request, InputRequired)
    (question,) = json.loads(request.body)["inputRequests"].values()
    assert question["method"] == "elicitation/create"
    assert question["params"]["mode"] == "url"
    assert question["params"]["url"].endswith(f"/approvals/{result.id}")
    going_on = asyncio.create_task(at_work.request(capabilities=PAGES, extra=answered(request)))
    done, _ = await asyncio.wait([going_on], timeout=0.3)
    assert not done
    await at_work.approve(result.id)
    assert isinstance(await going_on, CallResult)
    assert [call.extra for call in at_work.reached] == [""], "the server sees nothing of ours"


async def test_nobody_deciding_in_time_ends_the_waiting_with_the_id(
    at_work: PolicyReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other 29 s are for the answer: its way back can take long on a busy machine.
    monkeypatch.setattr(approval_service, "WAIT_SHARE", 0.02)
    request = await at_work.request(capabilities=PAGES)
    result = await at_work.the_one()
    again = {"capabilities": PAGES, "extra": answered(request), "seconds": 30}
    assert await required(at_work, **again) == result.id
    await at_work.approve(result.id)
    assert isinstance(await at_work.request(capabilities=PAGES), CallResult)


async def test_a_refusal_reaches_who_waits(at_work: PolicyReplicas) -> None:
    request = await at_work.request(capabilities=PAGES)
    result = await at_work.the_one()
    going_on = asyncio.create_task(at_work.request(capabilities=PAGES, extra=answered(request)))
    await at_work.reject(result.id, "Not today.")
    with pytest.raises(ApprovalRejectedError, match=r"Not today\."):
        await going_on


async def test_a_client_that_declines_is_told_that_it_waits(at_work: PolicyReplicas) -> None:
    request = await at_work.request(capabilities=PAGES)
    result = await at_work.the_one()
    declined = answered(request, "decline")
    assert await required(at_work, capabilities=PAGES, extra=declined) == result.id


async def test_a_caller_that_leaves_while_waiting_uses_nothing(at_work: PolicyReplicas) -> None:
    request = await at_work.request(capabilities=PAGES)
    result = await at_work.the_one()
    call = at_work.call(capabilities=PAGES, extra=answered(request))
    going_on = asyncio.create_task(at_work.ingress.calls.request(call))
    left = CallCancelled(call_id=call.call_id)

    async def ended() -> bool:
        await at_work.ingress.bus.publish(left.subject, left.encode())
        return going_on.done()

    await until_async(ended, "the end of the waiting")
    with pytest.raises(CallCancelledError):
        await going_on
    await at_work.approve(result.id)
    assert isinstance(await at_work.request(), CallResult)
    assert len(at_work.reached) == 1


async def test_a_key_revoked_while_it_waits_gets_nothing(at_work: PolicyReplicas) -> None:
    request = await at_work.request(capabilities=PAGES)
    result = await at_work.the_one()
    going_on = asyncio.create_task(at_work.request(capabilities=PAGES, extra=answered(request)))
    await at_work.declare(declared(revoked=True))
    await until_async(lambda: _is_unknown(at_work), "the revocation")
    await at_work.approve(result.id)
    with pytest.raises(UnauthorizedError):
        await going_on
    assert at_work.reached == []


async def _is_unknown(made: PolicyReplicas) -> bool:
    """Whether either replica knows of the revocation: which one is asked is for the bus to say."""
    ends = await asyncio.gather(*(made.request("read") for _ in range(12)), return_exceptions=True)
    made.reached.clear()
    return all(isinstance(end, UnauthorizedError) for end in ends)


# -- an approved call that goes on --------------------------------------------------------------


def going_on(state: str) -> str:
    answers = {"name": {"action": "accept", "content": {}}}
    return json.dumps({"inputResponses": answers, "requestState": state})


async def test_an_approved_call_may_answer_each_state_of_its_server_once(
    at_work: PolicyReplicas,
) -> None:
    await at_work.approve(await required(at_work))
    await at_work.request()
    assert isinstance(await at_work.request(extra=going_on(STATE)), CallResult)
    assert isinstance(await at_work.request(extra=going_on("another state")), CallResult)
    await required(at_work, extra=going_on(STATE))
    assert [json.loads(call.extra)["requestState"] for call in at_work.reached[1:]] == [
        STATE,
        "another state",
    ]


async def test_a_state_of_the_servers_lets_nothing_through_that_was_not_approved(
    at_work: PolicyReplicas,
) -> None:
    await required(at_work, extra=going_on(STATE))
    await required(at_work, extra='{"inputResponses":{}}')
    assert at_work.reached == []
