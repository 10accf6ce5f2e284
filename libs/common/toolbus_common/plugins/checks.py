"""The check of a call by a plugin, in the form of the checks by guards."""

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import msgspec
from msgspec import Struct

from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts import CheckedCall, GuardCheck
from toolbus_common.contracts.events.guards import Verdict
from toolbus_common.errors import GuardBlockedError, GuardFailedError, ToolbusError
from toolbus_common.plugins import answers
from toolbus_common.plugins.answers import AnswerError
from toolbus_common.plugins.requests import PluginFaultError, PluginRequests
from toolbus_common.plugins.subjects import PREFIX, is_plugin

# The point at which plugins are asked with the guards of a phase.
POINTS = {
    "arguments": "before_decision", "prompts": "before_model", "results": "after_result",
    "completions": "after_model",
}  # fmt: skip
_UNKNOWN = "the configuration of this service does not contain the plugin"
_NOT_JSON = "the content is not a JSON document that plugins can read"
_AFTER = frozenset({"after_result", "after_model"})


class PluginCheck(Struct, frozen=True):
    """One check by a plugin. `error` is set if the call is refused; `changed` is the new value."""

    check: GuardCheck
    error: ToolbusError | None = None
    changed: Any = msgspec.UNSET


class PluginChecks:
    """The checks by the declared plugins of one process."""

    def __init__(self, requests: PluginRequests) -> None:
        self.requests = requests

    def at(self, checkers: Iterable[str], point: str) -> list[str]:
        """Return the plugins among `checkers` that are asked at a point, in their order.

        An unknown plugin is returned too: its check fails.
        """
        declared = self.requests.declared
        found: list[tuple[int, str]] = []
        for checker in dict.fromkeys(checkers):
            if is_plugin(checker):
                plugin = declared.get(checker.removeprefix(PREFIX))
                if plugin is None or point in plugin.hooks:
                    found.append((0 if plugin is None else plugin.order, checker))
        return [checker for _, checker in sorted(found)]

    def changes(self, checker: str) -> bool:
        """Return whether a plugin may change content, so that guards check its changes."""
        plugin = self._plugin(checker)
        return plugin is not None and plugin.changes

    def fails_closed(self, checker: str) -> bool:
        """Return whether a call is refused if this plugin could not check it."""
        plugin = self._plugin(checker)
        return plugin is None or plugin.fails_closed

    async def check(
        self, checker: str, point: str, call: CheckedCall, size: int, read: Callable[[], Any]
    ) -> PluginCheck:
        """Ask a plugin about a call. `read` returns the content, parsed, and is used if needed.

        `read` raises `ValueError` for a content that is not a document.
        """
        name, plugin, began = checker.removeprefix(PREFIX), self._plugin(checker), perf_counter()
        if plugin is None:
            return _failed(checker, None, point, size, began, _UNKNOWN)
        sees, changed = plugin.receives(point), msgspec.UNSET
        try:
            value = read() if sees else None
            answer = await self.requests.ask(name, plugin, point, call, value)
            if answer.verdict == "change":
                changed = answers.changed(value, answer.content)
        except (PluginFaultError, AnswerError) as fault:
            return _failed(checker, plugin, point, size, began, str(fault))
        except (ValueError, RecursionError):
            return _failed(checker, plugin, point, size, began, _NOT_JSON)
        verdicts: dict[str, Verdict] = {"change": "redacted", "refuse": "blocked"}
        check = GuardCheck(
            guard=checker,
            phase=point,
            verdict=verdicts.get(answer.verdict, "passed"),
            version=answers.shown_version(answer),
            bytes=size if sees else 0,
            us=_microseconds(began),
        )
        if answer.verdict != "refuse":
            return PluginCheck(check, changed=changed)
        reason = answers.shown_reason(answer)
        text = f"The plugin '{name}' refused this call: {reason}. {_effect(point)}"
        error = GuardBlockedError(
            f"{text} Change the call, or ask an operator about the plugin.",
            guard=checker,
            phase=point,
            findings=[],
        )
        return PluginCheck(check, error)

    def _plugin(self, checker: str) -> Plugin | None:
        return self.requests.declared.get(checker.removeprefix(PREFIX))


class UnaskedPlugins(PluginChecks):
    """Checks without plugins: a trial of a call must not reach programs, which may count it."""

    def at(self, checkers: Iterable[str], point: str) -> list[str]:  # noqa: ARG002 - of the base
        """Return no plugin."""
        return []


def _failed(
    checker: str, plugin: Plugin | None, point: str, size: int, began: float, reason: str
) -> PluginCheck:
    """Return the check of a plugin without a valid answer, and the error if it fails closed."""
    check = GuardCheck(
        guard=checker,
        phase=point,
        verdict="failed",
        bytes=size,
        us=_microseconds(began),
        error=reason,
    )
    if plugin is not None and not plugin.fails_closed:
        return PluginCheck(check)
    name = checker.removeprefix(PREFIX)
    text = (
        f"The plugin '{name}' could not be asked about this call: {reason}. {_effect(point)} "
        "Retry, or ask an operator to check the plugin with 'toolbus plugins list'."
    )
    return PluginCheck(check, GuardFailedError(text, guard=checker, phase=point))


def _effect(point: str) -> str:
    if point in _AFTER:
        return "The call was executed, but its result is withheld."
    return "Nothing was sent."


def _microseconds(began: float) -> int:
    return int((perf_counter() - began) * 1e6)
