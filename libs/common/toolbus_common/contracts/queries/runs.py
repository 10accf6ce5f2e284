"""Queries about runs of agent mode, which codemode answers."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query


class RunsRequest(Query):
    """List the runs of agent mode, show the run `run`, or cancel it with `cancel`.

    Operators and policy send this query to codemode. `after` is the id of the last run of the page
    before; the newest runs come first.
    """

    SUBJECT: ClassVar[str] = "tb.query.codemode.runs"
    AT_ONCE: ClassVar[int] = 8

    run: str = ""
    cancel: bool = False
    limit: int = 100
    after: str = ""


class OwnRunsRequest(Query):
    """Like `RunsRequest`, for the runs of one principal. Ingress sends this query to codemode.

    Codemode resolves `key_digest` itself, so ingress cannot assert an identity.
    """

    SUBJECT: ClassVar[str] = "tb.query.codemode.own_runs"
    AT_ONCE: ClassVar[int] = 8

    key_digest: str = Field(repr=False)
    run: str = ""
    cancel: bool = False
    limit: int = 100
    after: str = ""


class AgentStep(Message):
    """One call of a run: `kind` is `model` or `tool`, and `name` is the full name of its target.

    `state` is `running`, `done`, `failed` or `unknown`, and `code` is the code of an error. `at` is
    in seconds since the epoch.
    """

    kind: str
    name: str
    call_id: str
    at: float
    state: str
    code: str = ""


class AgentRunState(Message):
    """A run of agent mode, without content.

    `call` is the call of its newest request, and `approval` is the approval for which it waits.
    `code` and `reason` say how it ended. `turns` counts the model requests, `calls` counts the tool
    calls, and `cost` is in micro-dollars. Times are in seconds since the epoch. `steps` is empty in
    a list of runs.
    """

    run: str
    state: str
    customer: str
    key: str
    method: str
    model: str
    call: str
    trace_id: str
    started: float
    updated: float
    code: str = ""
    reason: str = ""
    approval: str = ""
    turns: int = 0
    calls: int = 0
    cost: int = 0
    tokens: int = 0
    steps: tuple[AgentStep, ...] = ()


class RunsReply(Message):
    """The runs, the newest first. `more` is true if older runs were omitted."""

    runs: tuple[AgentRunState, ...]
    more: bool = False


class FlowRunsQuery(Query):
    """List what runs have read; with `run`, only that run."""

    SUBJECT: ClassVar[str] = "tb.query.policy.flow_runs"

    run: str = ""


class ResetFlowRequest(Query):
    """Clear the record of what a run has read, as the operator `by`, for the reason `note`."""

    SUBJECT: ClassVar[str] = "tb.query.policy.reset_flow"

    run: str
    by: str
    note: str = ""


class FlowRun(Message):
    """What one run has read. Times are in seconds since the epoch.

    `run` is its id, `key` the key that made its first labelled call, and `scope` is `run`,
    `session` or `key`. `private` and `untrusted` are `<call id> <server>__<tool>` of the first call
    that read such content; empty if none did.
    """

    run: str
    key: str
    scope: str
    ends: float
    private: str = ""
    untrusted: str = ""


class FlowRunsReply(Message):
    """The reply to queries about runs. `more` is true if further runs are not listed."""

    runs: tuple[FlowRun, ...] = ()
    more: bool = False
