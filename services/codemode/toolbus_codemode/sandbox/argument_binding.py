"""Binding of positional and named arguments to a tool's parameters."""

from typing import Any

from toolbus_codemode.sandbox.protocol import IDEMPOTENCY, Tool


class NotBoundError(Exception):
    """The arguments do not match the tool's parameters."""

    def __init__(self, subject: str, problem: str) -> None:
        super().__init__(f"{subject} {problem}")
        self.subject = subject


def bound(
    namespace: str, tool: Tool, positional: tuple[Any, ...], named: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments by name. Raises `NotBoundError`.

    A tool without known parameters accepts any names. Every tool accepts an idempotency key.
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
