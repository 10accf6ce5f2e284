"""Events about guards, and the record of one check in the events of a call."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec

from toolbus_common.contracts.base import Plain
from toolbus_common.contracts.events.base import CallEvent, Event

# What a guard did. In the mode `observe`, `would_…` is what it would have done.
Verdict = Literal[
    "passed", "blocked", "redacted", "flagged", "asked", "failed",
    "would_block", "would_redact", "would_ask",
]  # fmt: skip


class GuardCheck(Plain):
    """One check of content by a guard.

    `version` identifies the rules of the guard. `findings` are the names of the rules that matched,
    each once and sorted, but never the matched text; `score` is the highest score. `bytes` is the
    size of the checked content, and `us` is the duration in microseconds. `error` says why a guard
    failed. `cached` is set if the verdict is that of an earlier check of the same content.
    """

    guard: str
    phase: str
    verdict: Verdict
    version: str = ""
    findings: tuple[str, ...] = ()
    score: float = 0.0
    bytes: int = 0
    us: int = 0
    error: str = ""
    cached: bool = False


def encoded_checks(checks: Sequence[GuardCheck]) -> str:
    """Return the checks as events contain them: a JSON array; empty without checks.

    The fields of these events are flat, because audit searches their text for single fields.
    """
    if not checks:
        return ""
    return msgspec.json.encode([each.__dict__ for each in checks]).decode()


class GuardFailed(CallEvent):
    """A guard could not check a call, and allowed it because the guard fails open.

    The service that ran the guard publishes this event. `reason` says why the guard failed.
    """

    NAME: ClassVar[str] = "guard.failed"

    guard: str
    phase: str
    reason: str


class MessageGuarded(CallEvent):
    """A guard found something in a message that belongs to no call, or could not check it.

    Executor publishes this event. Such a message is a server's notification or request to clients,
    or a client's answer. `call_id`, `key` and `tool` are those of the last call in the client's
    session; if none is known, `call_id` is `message.<server>`. `method` is the method of the
    message. `guards` are the checks. `withheld` is true if the message was not sent.
    """

    NAME: ClassVar[str] = "guard.message"

    guards: str
    withheld: bool = False


class FlowReset(Event):
    """An operator cleared the record of what a run has read. Policy publishes this event.

    `run` identifies the run, `key` is its key, `private` and `untrusted` are the ids of the calls
    that had read such content. `by` is the operator, and `reason` the operator's note.
    """

    NAME: ClassVar[str] = "flow.reset"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    run: str
    key: str
    private: str = ""
    untrusted: str = ""
    by: str = ""
    reason: str = ""
