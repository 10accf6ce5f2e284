"""Binding: positional and named arguments become a tool's named ones, or a sentence why not."""

from typing import Any

from toolbus_codemode.sandbox.protocol import IDEMPOTENCY, Tool


class NotBoundError(Exception):
    """The arguments do not fit the tool."""

    def __init__(self, subject: str, sentence: str) -> None:
        super().__init__(f"{subject} {sentence}")
        self.subject = subject


def bound(
    namespace: str, tool: Tool, positional: tuple[Any, ...], named: dict[str, Any]
) -> dict[str, Any]:
    """Arguments by name. A tool of which no parameter is known takes any by name.

    Any tool takes an idempotency key beside its own.
    """
    subject = f"{namespace}.{tool.name}"
    if len(positional) > len(tool.parameters):
        raise NotBoundError(subject, "got too many arguments.")
    arguments = dict(zip(tool.parameters, positional, strict=False))
    for name, value in named.items():
        if name in arguments:
            raise NotBoundError(subject, f"got {name!r} twice.")
        if tool.parameters and name not in (*tool.parameters, IDEMPOTENCY):
            raise NotBoundError(subject, f"has no parameter {name!r}.")
        arguments[name] = value
    for name in tool.parameters[: tool.required]:
        if name not in arguments:
            raise NotBoundError(subject, f"needs {name!r}.")
    return arguments
