"""Requests of the HTTP administration API, and queries for explanations of calls."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.queries.base import Query

StepResult = Literal["passed", "denied", "asks", "warning", "skipped"]


class AdminRequest(Query):
    """Run one administration operation with the rights of an administrator.

    Ingress sends this query to policy. Policy resolves `key_digest` itself, so ingress cannot
    assert an identity. `match` is the revision that the client has read (`If-Match`), or `*` for
    any revision. `form` is the format of `body`. `limit` and `after` select a page of a list, and
    `search` the entries whose names contain it. With `everything`, a list also contains the entries
    that it otherwise omits.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.admin"
    AT_ONCE: ClassVar[int] = 4  # a report over many events takes long
    BODY: ClassVar[str | None] = "body"

    key_digest: str = Field(repr=False)
    operation: str
    kind: str = ""
    name: str = ""
    match: str = ""
    form: str = "json"
    dry_run: bool = False
    limit: int = 100
    after: str = ""
    search: str = ""
    everything: bool = False
    customer: str = ""
    body: bytes = Field(default=b"", exclude=True, repr=False)


class AdminReply(Message):
    """The response to an administration operation.

    `revision` is the revision of the configuration, or 0 if the response does not depend on it.
    """

    BODY: ClassVar[str | None] = "body"

    revision: int = 0
    created: bool = False
    form: str = "json"
    body: bytes = Field(default=b"", exclude=True, repr=False)


class ExplainQuery(Query):
    """Explain how a call with the key `key` would be decided. Operators send this to policy.

    `name` is the name of a tool as clients know it, an alias of a model, or `provider/model`.
    `arguments` is raw JSON: the arguments of the tool, or the body of the model request.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.explain"
    AT_ONCE: ClassVar[int] = 4

    key: str
    name: str
    arguments: str = Field(default="{}", repr=False)


class OwnExplainQuery(Query):
    """Like `ExplainQuery`, for the caller's own key. Ingress sends this query to policy.

    Policy resolves `key_digest` itself, so ingress cannot assert an identity. The explanation
    contains only what the caller may see; other tools and models are reported as unknown.
    """

    SUBJECT: ClassVar[str] = "tb.query.policy.explain_own"
    AT_ONCE: ClassVar[int] = 4

    key_digest: str = Field(repr=False)
    name: str
    arguments: str = Field(default="{}", repr=False)


class ExplainedStep(Message):
    """One step of the decision, in the order in which policy takes them.

    `step` is `key`, `name`, `grant`, `quarantine`, `price`, `guard`, `flow`, `rule`, `approval`,
    `budget`, `rate`, `loop` or `server`. `level` is the level that it belongs to, such as
    `team:support`; else empty. `decides` is set for the step that denies the call or asks for
    approval. Amounts in `details` are in dollars or calls.
    """

    step: str
    result: StepResult
    text: str
    level: str = ""
    decides: bool = False
    details: dict[str, Any] = Field(default_factory=dict)


class Explanation(Message):
    """How a call would be decided, and why. Nothing was reserved, recorded or sent.

    `code` and `reason` are those of the error that the call would get; empty if it is allowed.
    `server` and `target` are the server or provider, and its tool or model; empty for a name that
    refers to nothing.
    """

    key: str
    name: str
    server: str
    target: str
    result: Literal["allowed", "approval", "denied"]
    code: str = ""
    reason: str = ""
    steps: tuple[ExplainedStep, ...] = ()
