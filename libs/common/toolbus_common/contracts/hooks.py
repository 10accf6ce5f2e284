"""Requests to plugins, and their answers: plain JSON, for plugins in any language."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from toolbus_common.contracts.base import Message, Plain


class HookRequest(Plain):
    """A question to a plugin about a call, or another decision, on `tb.hook.<point>.<plugin>`.

    Names that a decision does not have are empty.

    `deadline` is in seconds since the epoch; a later answer is not used. `has_content` says whether
    `content` is the content of the point: without it, the plugin sees only the names.
    """

    SUBJECT: ClassVar[str] = "tb.hook"

    point: str
    plugin: str
    call_id: str
    customer: str
    key: str
    server: str
    tool: str
    deadline: float
    has_content: bool = False
    content: Any = Field(default=None, repr=False)


class HookReply(Message):
    """The answer of a plugin.

    `verdict` is what it decided. With `change`, `content` is the changed content. With `refuse`,
    `reason` is a text for the caller; with `fail`, it says why the plugin could not decide.
    `version` is the plugin's version, for the event of the call.
    """

    verdict: Literal["pass", "change", "refuse", "fail"] = "pass"
    content: Any = Field(default=None, repr=False)
    reason: str = Field(default="", max_length=1000)
    version: str = Field(default="", max_length=64)
