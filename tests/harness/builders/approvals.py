"""Approvals of calls."""

from harness.builders.configurations import configured
from toolbus_common.access.config_snapshot import ConfigSnapshot
from toolbus_common.contracts import CallRequested
from toolbus_policy.approvals.model import Approval, Cause, new_approval


def pending_approval(call: CallRequested) -> Approval:
    """Return the approval of a call of the key `bot`, from the time 100 to the time 200."""
    principal = ConfigSnapshot.of(configured(keys={"bot": {"tools": ["*"]}})).principal("bot")
    return new_approval(call, principal, Cause("key:bot"), "binding", (100.0, 200.0))
