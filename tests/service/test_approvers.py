"""Approvers: another person with the right, of the same customer."""

from typing import Any

import pytest

from harness.services.policy_replicas import (
    BOSS,
    CHIEF,
    FOREIGN,
    OWN,
    SECRET,
    PolicyReplicas,
    declared,
    required,
)
from harness.waits import PATIENCE, until_async
from toolbus_common.access.config_snapshot import key_digest_of
from toolbus_common.contracts import ApprovalsReply, ApproverRequest, CallResult
from toolbus_common.errors import ForbiddenError, UnauthorizedError, UnknownApprovalError


async def decide(
    policy: PolicyReplicas, secret: str, approval: str, action: str = "approve"
) -> Any:
    request = ApproverRequest(key_digest=key_digest_of(secret), id=approval, action=action)
    return await policy.ingress.requests.request(request, ApprovalsReply, PATIENCE)


@pytest.mark.parametrize("secret", [SECRET, OWN], ids=["its own key", "its person's other key"])
async def test_a_caller_cannot_approve_their_own_calls(policy: PolicyReplicas, secret: str) -> None:
    approval = await required(policy)
    for action in ("approve", "reject"):
        with pytest.raises(ForbiddenError, match="their own calls"):
            await decide(policy, secret, approval, action)
    await required(policy)


@pytest.mark.parametrize("secret", [BOSS, CHIEF], ids=["of no customer", "of the customer"])
async def test_a_key_with_the_right_decides_and_is_named(
    policy: PolicyReplicas, secret: str
) -> None:
    approval = await required(policy)

    async def listed() -> Any:
        return (await decide(policy, secret, "", "show")).approvals

    (result,) = await until_async(listed, "the pending approval")
    assert result.id == approval
    (decided,) = (await decide(policy, secret, approval)).approvals
    assert decided.by == f"key:{secret.split('_')[1]}"
    assert isinstance(await policy.request(), CallResult)


async def test_an_approver_of_another_customer_sees_and_decides_nothing(
    policy: PolicyReplicas,
) -> None:
    approval = await required(policy)
    await policy.the_one()
    for _ in range(8):
        assert (await decide(policy, FOREIGN, "", "show")).approvals == ()
    for action in ("show", "approve", "reject"):
        with pytest.raises(UnknownApprovalError):
            await decide(policy, FOREIGN, approval, action)


async def test_a_key_without_the_right_is_rejected(policy: PolicyReplicas) -> None:
    await policy.declare(declared(rights=[]))
    approval = await required(policy)
    await until_async(lambda: _forbidden(policy, approval), "the right to be gone")
    with pytest.raises(UnauthorizedError):
        await decide(policy, "tbk_nobody_knows-this-secret", approval)


async def _forbidden(policy: PolicyReplicas, approval: str) -> bool:
    try:
        await decide(policy, SECRET, approval, "show")
    except ForbiddenError as error:
        return "rights: [approve]" in error.reason
    return False
