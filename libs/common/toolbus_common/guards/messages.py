"""Texts of the errors of guards. They name the guard and its rules, but never the content."""

import re
from collections.abc import Iterable, Sequence

from toolbus_common.config.guards.guard import Action, Phase

MOST_NAMES = 64  # names of rules in a check
MOST_SHOWN = 8  # names of rules in an error
_LONGEST_NAME = 64
_NOT_SHOWN = re.compile(r"[^\w .:/-]")

# What was checked, what happened to the call, and what its caller can do.
_PLACES: dict[Phase, tuple[str, str, str]] = {
    "arguments": (
        "the arguments of this call",
        "Nothing was sent",
        "Remove it from the arguments and repeat the call",
    ),
    "prompts": (
        "this request to a model",
        "Nothing was sent",
        "Remove it from the messages and repeat the request",
    ),
    "results": (
        "the result of this call",
        "The server has executed the call, but its result is withheld",
        "Request other data",
    ),
    "completions": (
        "the response of the model",
        "The response is withheld",
        "Change the request",
    ),
    "definitions": (
        "this definition",
        "It is withheld",
        "Correct it at its server",
    ),
}


def blocked_reason(guard: str, action: Action, phase: Phase, findings: Sequence[str]) -> str:
    """Return the reason of a rejection."""
    place, effect, advice = _PLACES[phase]
    cause = _CAUSES.get(action, "")
    shown = ", ".join(findings[:MOST_SHOWN])
    return (
        f"The guard '{guard}' found {shown} in {place}{cause}. {effect}. {advice}, or ask an "
        "operator to change the guard."
    )


_CAUSES: dict[Action, str] = {
    "redact": ", which it cannot redact",
    "ask": ", which would require an approval, but cannot wait for one",
}


def failed_reason(guard: str, phase: Phase, reason: str) -> str:
    """Return the reason of a rejection by a guard that could not check the content."""
    place, effect, _ = _PLACES[phase]
    return (
        f"The guard '{guard}' could not check {place}: {reason.rstrip('.')}. {effect}. Retry, or "
        f"ask an operator to check the guard with 'toolbus get guards {guard}'."
    )


def shown_names(findings: Iterable[str]) -> tuple[str, ...]:
    """Return names of rules for events and errors: each once, sorted, and of limited length.

    Names that a service returns are untrusted.
    """
    names = {_NOT_SHOWN.sub("_", each)[:_LONGEST_NAME] for each in findings}
    return tuple(sorted(names))[:MOST_NAMES]
