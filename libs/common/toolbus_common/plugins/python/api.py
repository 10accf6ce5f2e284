"""What a plugin imports: the marker of its hooks, the call, and its answers.

A plugin is a module, or an object, with functions named like points:

    from toolbus_common.plugins.python.api import Answer, Call, hook, refuse

    @hook
    def before_decision(call: Call, settings: dict) -> Answer | None:
        if call.content["arguments"].get("amount", 0) > settings["most"]:
            return refuse("the amount is too high")

Its package names it in the entry point group `toolbus.plugins`. A hook can leave out parameters
that it does not need, and can be a coroutine function. A hook that returns None changes nothing.
"""

from dataclasses import dataclass
from typing import Any, Final

import pluggy

GROUP: Final = "toolbus.plugins"
PROJECT: Final = "toolbus"
hook = pluggy.HookimplMarker(PROJECT)
_point = pluggy.HookspecMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class Call:
    """A call, or another decision. `content` is None if the plugin sees only names.

    `deadline` is in seconds since the epoch.
    """

    point: str
    call_id: str
    customer: str
    key: str
    server: str
    tool: str
    deadline: float
    content: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a plugin decided."""

    verdict: str = "pass"
    content: Any = None
    reason: str = ""


def change(content: Any) -> Answer:
    """Return the answer that replaces the content of a call."""
    return Answer("change", content)


def refuse(reason: str) -> Answer:
    """Return the answer that refuses a call. Its caller receives the reason."""
    return Answer("refuse", reason=reason)


class Points:
    """The points at which a plugin can be asked."""

    @_point(firstresult=True)
    def before_decision(self, call: Call, settings: dict[str, Any]) -> Answer | None:
        """Answer before the decision about a call."""

    @_point(firstresult=True)
    def after_decision(self, call: Call, settings: dict[str, Any]) -> Answer | None:
        """Answer after the decision about a call, before its budget is reserved."""

    @_point(firstresult=True)
    def before_upstream(self, call: Call, settings: dict[str, Any]) -> Answer | None:
        """Answer before the server is called."""

    @_point(firstresult=True)
    def after_result(self, call: Call, settings: dict[str, Any]) -> Answer | None:
        """Answer before the caller receives the result."""

    @_point(firstresult=True)
    def before_model(self, call: Call, settings: dict[str, Any]) -> Answer | None:
        """Answer before the decision about a request to a model."""

    @_point(firstresult=True)
    def after_model(self, call: Call, settings: dict[str, Any]) -> Answer | None:
        """Answer before the caller receives texts of a model's response."""

    @_point(firstresult=True)
    def on_event(self, call: Call, settings: dict[str, Any]) -> Answer | None:
        """Receive events that were stored: a list, `call.content["events"]`."""

    @_point(firstresult=True)
    def on_definition(self, call: Call, settings: dict[str, Any]) -> Answer | None:
        """Answer before a definition of a server is pinned and listed."""

    @_point(firstresult=True)
    def on_key(self, call: Call, settings: dict[str, Any]) -> Answer | None:
        """Answer before a key is created, changed or rotated, and after it was revoked."""

    @_point(firstresult=True)
    def on_login(self, call: Call, settings: dict[str, Any]) -> Answer | None:
        """Answer before a person is signed in."""
