"""Who may decide about calls that wait: somebody else, with the right, of the same customer."""

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


async def decide(made: PolicyReplicas, secret: str, approval: str, action: str = "approve") -> Any:
    request = ApproverRequest(key_digest=key_digest_of(secret), id=approval, action=action)
    return await made.ingress.requests.request(request, ApprovalsReply, PATIENCE)


@pytest.mark.parametrize("secret", [SECRET, OWN], ids=["its own key", "its person's other key"])
async def test_nobody_approves_their_own_calls(at_work: PolicyReplicas, secret: str) -> None:
    approval = await required(at_work)
    for action in ("approve", "reject"):
        with pytest.raises(ForbiddenError, match="their own calls"):
            await decide(at_work, secret, approval, action)
    await required(at_work)


@pytest.mark.parametrize("secret", [BOSS, CHIEF], ids=["of no customer", "of the customer"])
async def test_a_key_with_the_right_decides_and_is_named(
    at_work: PolicyReplicas, secret: str
) -> None:
    approval = await required(at_work)

    async def listed() -> Any:
        return (await decide(at_work, secret, "", "show")).approvals

    (result,) = await until_async(listed, "what waits")
    assert result.id == approval
    (decided,) = (await decide(at_work, secret, approval)).approvals
    assert decided.by == f"key:{secret.split('_')[1]}"
    assert isinstance(await at_work.request(), CallResult)


async def test_another_customers_approver_sees_and_decides_nothing(at_work: PolicyReplicas) -> None:
    approval = await required(at_work)
    await at_work.the_one()
    for _ in range(8):
        assert (await decide(at_work, FOREIGN, "", "show")).approvals == ()
    for action in ("show", "approve", "reject"):
        with pytest.raises(UnknownApprovalError):
            await decide(at_work, FOREIGN, approval, action)


async def test_a_key_without_the_right_is_told_so(at_work: PolicyReplicas) -> None:
    await at_work.declare(declared(rights=[]))
    approval = await required(at_work)
    await until_async(lambda: _forbidden(at_work, approval), "the right to be gone")
    with pytest.raises(UnauthorizedError):
        await decide(at_work, "tbk_nobody_knows-this-secret", approval)


async def _forbidden(made: PolicyReplicas, approval: str) -> bool:
    try:
        await decide(made, SECRET, approval, "show")
    except ForbiddenError as error:
        return "rights: [approve]" in error.reason
    return False
