"""The decision about a call that sends data outside after private and untrusted reads."""

from typing import Literal

from toolbus_common.access.tool_patterns import full_name
from toolbus_common.config.flow import FlowAction
from toolbus_common.contracts.flow import FlowRead, FlowState
from toolbus_common.flow.labels import Labels

FlowVerdict = Literal["passed", "flagged", "asked", "refused"]
_VERDICTS: dict[FlowAction, FlowVerdict] = {
    "off": "passed", "flag": "flagged", "ask": "asked", "refuse": "refused",
}  # fmt: skip


def decide(before: FlowState, labels: Labels, action: FlowAction) -> FlowVerdict:
    """Return the verdict on a call with these labels; `before` is what its run has read.

    The combination is dangerous if the run has read private data and untrusted content before this
    call, and the call sends data outside. What the call itself reads counts for later calls only:
    its arguments were written before.
    """
    if labels.is_sink and before.private is not None and before.untrusted is not None:
        return _VERDICTS[action]
    return "passed"


def after(before: FlowState, labels: Labels, read: FlowRead) -> FlowState:
    """Return what the run has read once this call is dispatched.

    For private and for untrusted data, only the first call that read it is recorded.
    """
    return FlowState(
        before.private or (read if labels.reads_private else None),
        before.untrusted or (read if labels.reads_untrusted else None),
    )


def chain_text(before: FlowState, server: str, tool: str) -> str:
    """Return the calls of the combination as a sentence."""
    steps = []
    for each in before.chain:
        kinds = [
            kind
            for kind, first in (("private", before.private), ("untrusted", before.untrusted))
            if first == each
        ]
        steps.append(f"'{full_name(each.server, each.tool)}' read {' and '.join(kinds)} data")
    return f"{', then '.join(steps)}; '{full_name(server, tool)}' would send data outside."
