"""The local projection of the approvals, without a bus."""

import msgspec
import pytest

from harness.builders.approvals import pending_approval
from harness.builders.calls import requested_call
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.sealed_records import Records
from toolbus_common.nats.topology import APPROVALS
from toolbus_policy.approvals import model as approvals
from toolbus_policy.approvals.model import Approval
from toolbus_policy.approvals.repository import ApprovalRepository

RECORDS = Records(APPROVALS, [bytes(32)])
PENDING = pending_approval(requested_call(call_id="c1", tool="burn"))


@pytest.mark.parametrize(
    "approval", [approvals.withdrawn(PENDING), approvals.rejected(PENDING, "key:boss", "No.", 900)]
)
def test_an_ended_approval_is_known_until_its_end(approval: Approval) -> None:
    repository = ApprovalRepository(RECORDS)
    sealed = RECORDS.seal(approval.binding, msgspec.json.encode(approval))
    repository.apply_change(Change(approval.binding, sealed, 1))
    repository.evict_ended(approval.ends - 1)
    assert repository.find(approval.binding) is not None
    repository.evict_ended(approval.ends)
    assert repository.find(approval.binding) is None
