"""Approvals on a real bus, with two replicas of policy: decided once, used once, and in time."""

import asyncio
import json
from typing import Any

import pytest

from harness.clients.bus_operator import key
from harness.services.policy_replicas import (
    OWN,
    PAGES,
    SECRET,
    PolicyReplicas,
    declared,
    last_event,
    required,
)
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


def answered(reply: FinalReply, action: str = "accept") -> str:
    """Return the answer of a client that opened the page."""
    assert isinstance(reply, InputRequired)
    body = json.loads(reply.body)
    answers = {name: {"action": action} for name in body["inputRequests"]}
    return json.dumps({"inputResponses": answers, "requestState": body["requestState"]})


async def test_a_call_without_approval_rules_runs(policy: PolicyReplicas) -> None:
    assert isinstance(await policy.request("read"), CallResult)
    assert await policy.waiting() == ()


async def test_a_call_waits_for_approval_and_runs_once_approved(policy: PolicyReplicas) -> None:
    approval = await required(policy)
    assert await required(policy) == approval, "one approval, however often the call is repeated"
    result = await policy.the_one()
    assert (result.id, result.key, result.server, result.tool) == (approval, "bot", "docs", "burn")
    assert (result.cause, json.loads(result.arguments)) == ("key:bot", {"page": 7})
    (decided,) = (await policy.approve(approval)).approvals
    assert (decided.state, decided.by) == ("granted", "operator:ann")
    assert isinstance(await policy.request(), CallResult)
    assert await required(policy) != approval, "single use"
    assert len(policy.reached) == 1


async def test_a_decision_counts_at_once_at_every_replica(policy: PolicyReplicas) -> None:
    for page in range(20):
        given: dict[str, Any] = {"arguments": {"page": page}}
        await policy.approve(await required(policy, **given))
        assert isinstance(await policy.request(**given), CallResult)


async def test_exactly_one_of_many_concurrent_calls_uses_an_approval(
    policy: PolicyReplicas,
) -> None:
    for round_ in range(5):
        given: dict[str, Any] = {"arguments": {"round": round_}}
        await policy.approve(await required(policy, **given))
        ends = await asyncio.gather(
            *(policy.request(**given) for _ in range(12)), return_exceptions=True
        )
        assert sum(isinstance(end, CallResult) for end in ends) == 1
        others = [end for end in ends if not isinstance(end, CallResult)]
        assert {type(end) for end in others} == {ApprovalRequiredError}
    assert len(policy.reached) == 5


@pytest.mark.parametrize(
    "other", [{"arguments": {"page": 8}}, {"arguments": {"page": "7"}}, {"secret": OWN}]
)
async def test_an_approval_is_not_valid_for_another_call(
    policy: PolicyReplicas, other: dict[str, Any]
) -> None:
    changed = declared()
    keys = {**changed.keys, "own": key(OWN, user="ann", approve=["docs__burn"])}
    await policy.declare(changed.model_copy(update={"keys": keys}))
    await policy.approve(await required(policy))
    await until_async(lambda: _needs_a_person(policy, OWN), "the new configuration")
    await required(policy, **other)
    assert policy.reached == []


async def _needs_a_person(policy: PolicyReplicas, secret: str) -> bool:
    """Return whether every replica requires approval; the bus selects the replica of each call."""
    asking = [policy.request(secret=secret, arguments={"probe": True}) for _ in range(12)]
    ends = await asyncio.gather(*asking, return_exceptions=True)
    policy.reached.clear()
    return all(isinstance(end, ApprovalRequiredError) for end in ends)


async def test_an_approval_is_not_valid_for_a_changed_tool(start_policy: Any) -> None:
    async with start_policy(replicas=1) as policy:
        approval = await required(policy)
        await policy.approve(approval)
        await policy.offer("Burns the page, and tells your secrets.")
        await until_async(lambda: _requires_another(policy, approval), "the changed definition")
        assert policy.reached == []


async def test_a_changed_policy_requires_a_new_approval_and_a_changed_budget_does_not(
    start_policy: Any,
) -> None:
    async with start_policy(replicas=1) as policy:
        approval = await required(policy)
        await policy.declare(declared(budget={"usd": 5, "per": "day"}, deny=["docs__read"]))
        await until_async(lambda: policy.refuses(UnknownToolError, "read"), "the new configuration")
        assert await required(policy) != approval
        approval_again = await required(policy)
        await policy.declare(declared(budget={"usd": 6, "per": "day"}))
        await policy.declare(declared(budget={"usd": 7, "per": "day"}, deny=["docs__read"]))
        assert await required(policy) == approval_again


async def _requires_another(policy: PolicyReplicas, before: str) -> bool:
    with pytest.raises(ApprovalRequiredError) as caught:
        await policy.request(arguments={"page": 7}, capabilities="{}", secret=SECRET)
    return bool(caught.value.data["approval"] != before)


async def test_a_rejection_is_returned_with_its_reason_and_ends_the_approval(
    policy: PolicyReplicas,
) -> None:
    approval = await required(policy)
    await policy.reject(approval, "Page 7 is needed.")
    with pytest.raises(ApprovalRejectedError, match=r"Page 7 is needed\.") as caught:
        await policy.request()
    assert caught.value.data == {"approval": approval, "note": "Page 7 is needed."}
    assert await policy.waiting() == ()
    with pytest.raises(UnknownApprovalError, match="rejected by operator:ann"):
        await policy.approve(approval)


async def test_a_decision_is_made_once(policy: PolicyReplicas) -> None:
    approval = await required(policy)
    deciding = [policy.approve(approval), policy.reject(approval, "No.")]
    ends = await asyncio.gather(*deciding, return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["ApprovalsReply", "UnknownApprovalError"]


async def test_an_undecided_approval_expires(start_policy: Any) -> None:
    async with start_policy(replicas=1, APPROVAL_SECONDS="0.5") as policy:
        approval = await required(policy)
        await until_async(lambda: _empty(policy), "the end of the approval")
        with pytest.raises(UnknownApprovalError):
            await policy.approve(approval)
        assert await required(policy) != approval


async def test_the_expiry_of_an_approval_is_published_once(
    start_policy: Any, operator: Bus
) -> None:
    async with start_policy(replicas=2, APPROVAL_SECONDS="0.3") as policy:
        approval = await required(policy)
        await until_async(lambda: _empty(policy), "the end of the approval")
        found = await until_async(lambda: last_event(operator, "approval.expired"), "the event")
        assert json.loads(found)["approval"] == approval
    stream = await operator.client.jetstream().stream_info(
        EVENTS, subjects_filter="tb.event.approval.expired.>"
    )
    assert stream.state.subjects == {"tb.event.approval.expired.acme": 1}


async def test_a_call_rejected_by_its_rate_does_not_use_its_approval(start_policy: Any) -> None:
    async with start_policy(replicas=1) as policy:
        await policy.declare(declared(rate={"calls": 1, "per": "day"}))
        await until_async(lambda: _out_of_rate(policy), "the rate")
        approval = await required(policy)
        await policy.approve(approval)
        with pytest.raises(RateExceededError):
            await policy.request()
        await policy.declare(declared())
        await until_async(lambda: _in_rate(policy), "no rate")
        policy.reached.clear()
        assert isinstance(await policy.request(), CallResult)
        assert len(policy.reached) == 1
        assert await required(policy) != approval


async def _out_of_rate(policy: PolicyReplicas) -> bool:
    try:
        await policy.request("read")
    except RateExceededError:
        return True
    return False


async def _in_rate(policy: PolicyReplicas) -> bool:
    return not await _out_of_rate(policy)


async def _empty(policy: PolicyReplicas) -> bool:
    return await policy.waiting() == ()


async def test_an_unused_approval_expires(start_policy: Any) -> None:
    async with start_policy(APPROVED_SECONDS="0.3") as policy:
        approval = await required(policy)
        await policy.approve(approval)
        await asyncio.sleep(0.4)
        assert await required(policy) != approval
        assert policy.reached == []


async def test_arguments_are_stored_only_while_an_approval_is_open(policy: PolicyReplicas) -> None:
    secret = {"page": "canary-argument"}
    await policy.approve(await required(policy, arguments=secret))
    assert b"canary-argument" in b"".join(await policy.kept(APPROVALS))
    await policy.request(arguments=secret)
    approval = await required(policy, arguments=secret)
    await policy.reject(approval, "No.")
    assert b"canary-argument" not in b"".join(await policy.kept(APPROVALS))


async def test_a_key_has_a_limited_number_of_pending_approvals(start_policy: Any) -> None:
    async with start_policy(MAX_PENDING_APPROVALS="3") as policy:
        asking = [policy.request(arguments={"page": page}) for page in range(20)]
        ends = await asyncio.gather(*asking, return_exceptions=True)
        refused = [end for end in ends if isinstance(end, OverloadedError)]
        assert 3 <= 20 - len(refused) <= 6, "at most the limit for each concurrent replica"

        async def is_complete() -> bool:
            request = await asyncio.gather(*(policy.waiting() for _ in range(12)))
            return {len(each) for each in request} == {20 - len(refused)}

        await until_async(is_complete, "every pending approval at every replica")
        with pytest.raises(OverloadedError):
            await policy.request(arguments={"page": "one more"})


async def test_arguments_too_large_to_review_are_rejected(policy: PolicyReplicas) -> None:
    with pytest.raises(InvalidError, match="65536 bytes"):
        await policy.request(arguments={"page": "x" * 70_000})
    assert await policy.waiting() == ()


# -- clients that can open pages -------------------------------------------------------------------


async def test_a_client_that_opens_pages_gets_the_url_and_waits(policy: PolicyReplicas) -> None:
    request = await policy.request(capabilities=PAGES)
    result = await policy.the_one()
    assert isinstance(request, InputRequired)
    (question,) = json.loads(request.body)["inputRequests"].values()
    assert question["method"] == "elicitation/create"
    assert question["params"]["mode"] == "url"
    assert question["params"]["url"].endswith(f"/approvals/{result.id}")
    going_on = asyncio.create_task(policy.request(capabilities=PAGES, extra=answered(request)))
    done, _ = await asyncio.wait([going_on], timeout=0.3)
    assert not done
    await policy.approve(result.id)
    assert isinstance(await going_on, CallResult)
    assert [call.extra for call in policy.reached] == [""], (
        "the server gets none of the gateway's answers"
    )


async def test_without_a_decision_in_time_the_wait_ends_with_the_id(
    policy: PolicyReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other 29 s are for the answer, which can be slow on a busy machine.
    monkeypatch.setattr(approval_service, "WAIT_SHARE", 0.02)
    request = await policy.request(capabilities=PAGES)
    result = await policy.the_one()
    again = {"capabilities": PAGES, "extra": answered(request), "seconds": 30}
    assert await required(policy, **again) == result.id
    await policy.approve(result.id)
    assert isinstance(await policy.request(capabilities=PAGES), CallResult)


async def test_a_rejection_ends_the_wait_of_the_caller(policy: PolicyReplicas) -> None:
    request = await policy.request(capabilities=PAGES)
    result = await policy.the_one()
    going_on = asyncio.create_task(policy.request(capabilities=PAGES, extra=answered(request)))
    await policy.reject(result.id, "Not today.")
    with pytest.raises(ApprovalRejectedError, match=r"Not today\."):
        await going_on


async def test_a_client_that_declines_the_page_gets_the_pending_approval(
    policy: PolicyReplicas,
) -> None:
    request = await policy.request(capabilities=PAGES)
    result = await policy.the_one()
    declined = answered(request, "decline")
    assert await required(policy, capabilities=PAGES, extra=declined) == result.id


async def test_a_caller_that_disconnects_while_waiting_uses_no_approval(
    policy: PolicyReplicas,
) -> None:
    request = await policy.request(capabilities=PAGES)
    result = await policy.the_one()
    call = policy.call(capabilities=PAGES, extra=answered(request))
    going_on = asyncio.create_task(policy.ingress.calls.request(call))
    cancelled = CallCancelled(call_id=call.call_id)

    async def ended() -> bool:
        await policy.ingress.bus.publish(cancelled.subject, cancelled.encode())
        return going_on.done()

    await until_async(ended, "the end of the waiting")
    with pytest.raises(CallCancelledError):
        await going_on
    await policy.approve(result.id)
    assert isinstance(await policy.request(), CallResult)
    assert len(policy.reached) == 1


async def test_a_key_revoked_while_its_call_waits_gets_no_result(policy: PolicyReplicas) -> None:
    request = await policy.request(capabilities=PAGES)
    result = await policy.the_one()
    going_on = asyncio.create_task(policy.request(capabilities=PAGES, extra=answered(request)))
    await policy.declare(declared(revoked=True))
    await until_async(lambda: _is_unknown(policy), "the revocation")
    await policy.approve(result.id)
    with pytest.raises(UnauthorizedError):
        await going_on
    assert policy.reached == []


async def _is_unknown(policy: PolicyReplicas) -> bool:
    """Return whether every replica rejects the revoked key."""
    ends = await asyncio.gather(
        *(policy.request("read") for _ in range(12)), return_exceptions=True
    )
    policy.reached.clear()
    return all(isinstance(end, UnauthorizedError) for end in ends)


# -- an approved call that continues ---------------------------------------------------------------


def going_on(state: str) -> str:
    answers = {"name": {"action": "accept", "content": {}}}
    return json.dumps({"inputResponses": answers, "requestState": state})


async def test_an_approved_call_may_answer_each_state_of_its_server_once(
    policy: PolicyReplicas,
) -> None:
    await policy.approve(await required(policy))
    await policy.request()
    assert isinstance(await policy.request(extra=going_on(STATE)), CallResult)
    assert isinstance(await policy.request(extra=going_on("another state")), CallResult)
    await required(policy, extra=going_on(STATE))
    assert [json.loads(call.extra)["requestState"] for call in policy.reached[1:]] == [
        STATE,
        "another state",
    ]


async def test_a_state_of_the_server_does_not_replace_an_approval(policy: PolicyReplicas) -> None:
    await required(policy, extra=going_on(STATE))
    await required(policy, extra='{"inputResponses":{}}')
    assert policy.reached == []
