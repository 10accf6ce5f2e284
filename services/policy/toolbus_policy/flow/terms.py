"""The terms of information flow for the calls of one tool by one key, and the run of a call."""

from msgspec import Struct

from toolbus_common.access import session_owner
from toolbus_common.access.principal import Principal
from toolbus_common.config import Flow
from toolbus_common.config.flow import FlowAction, FlowScope
from toolbus_common.contracts import CallRequested, Listing
from toolbus_common.contracts.agent_runs import AGENT_RUN
from toolbus_common.flow.labels import NO_LABELS, Labels, labels_of_call
from toolbus_common.mcp.builtin_server import BUILT_IN, EXECUTE

DAY = 86_400.0
RUN_SECONDS = 7 * DAY  # how long what a session or run has read counts after its last read
_SPARE = 1.25  # an entry is written again only after a fifth of its time


class FlowTerms(Struct, frozen=True):
    """How information flow applies to a call. `flow` is None if only rules read the state.

    `starts` is set for a program and for a run of agent mode, whose calls are followed.
    """

    labels: Labels
    flow: Flow | None = None
    starts: bool = False

    @property
    def action(self) -> FlowAction:
        """The action if the run has read private and untrusted content and writes outside."""
        return self.flow.action if self.flow is not None else "off"


class Run(Struct, frozen=True):
    """Calls whose reads are counted together. `id` is a digest that reveals nothing."""

    id: str
    scope: FlowScope
    seconds: float

    def renewed(self, ends: float, now: float) -> float:
        """Return the new end of an entry that ended at `ends` before its use at `now`."""
        return ends if ends - now >= self.seconds else now + self.seconds * _SPARE


def terms_of(
    principal: Principal,
    server: str,
    method: str,
    tool: str,
    listing: Listing | None,
    *,
    for_rules: bool,
) -> FlowTerms | None:
    """Return the terms for a call; None if information flow does not concern it.

    `for_rules` is true if any rule reads what the run has read.
    """
    declared = principal.declared
    flows = [level.flow for _, level in principal.levels if level.flow is not None]
    flow = Flow.strictest([declared.flow, *flows])
    if flow is None and not for_rules:
        return None
    if server == BUILT_IN:
        starts = tool == EXECUTE or method == AGENT_RUN
        return FlowTerms(NO_LABELS, flow, starts) if starts or for_rules else None
    labels = labels_of_call(declared.servers.get(server), method, tool, listing)
    return FlowTerms(labels, flow) if labels.matter or for_rules else None


def run_of(call: CallRequested, principal: Principal, owner: str, flow: Flow | None) -> Run:
    """Return the run of a call that codemode did not make.

    `owner` is the principal id of the caller. A client chooses its trace, and may choose another
    for each call, so the trace names the run only where the operator has decided so (`per: run`).
    """
    scope, window = (flow.per, flow.window) if flow is not None else ("session", 3600.0)
    if scope == "run" and call.run:
        return Run(session_owner.digest_of("run", owner, call.run), "run", RUN_SECONDS)
    if scope != "key" and call.session:
        return Run(session_owner.digest_of("session", owner, call.session), "session", RUN_SECONDS)
    holder = session_owner.holder_of(call.key_digest, principal)
    return Run(session_owner.digest_of("key", principal.customer, holder), "key", window)


def agent_run_of(run: str, owner: str) -> Run:
    """Return the run of the calls that codemode makes for this run of agent mode."""
    return Run(session_owner.digest_of("agent", owner, run), "run", RUN_SECONDS)
