"""Conversions between results of tools, values of programs, and text for the model."""

from typing import Any

import msgspec

from toolbus_codemode.results.large_result_reader import uri_in
from toolbus_codemode.sandbox.program import Failure, ProgramError, ToolOutcome

LONGEST_MESSAGE = 2_000


def outcome_of(body: bytes) -> ToolOutcome:
    """Convert a tool's result: its structured content, else its text, parsed if it is JSON."""
    result = msgspec.json.decode(body)
    # For clients that check schemas, a large structured result is an error with a link. Programs
    # get the link.
    if result.get("isError") and uri_in(result.get("content")) is None:
        message = _texts(result) or "The tool returned an error without a message."
        return ToolOutcome(failure=Failure("tool_error", message[:LONGEST_MESSAGE]))
    if result.get("structuredContent") is not None:
        return ToolOutcome(result["structuredContent"])
    blocks = result.get("content")
    if not isinstance(blocks, list) or any(
        not isinstance(block, dict) or block.get("type") != "text" for block in blocks
    ):
        return ToolOutcome(blocks)
    return ToolOutcome(_read(_texts(result)))


def _texts(result: dict[str, Any]) -> str:
    blocks = result.get("content") or []
    return "\n".join(
        str(block.get("text", ""))
        for block in blocks
        if isinstance(block, dict) and block.get("type") == "text"
    )


def _read(text: str) -> Any:
    """Parse a JSON object or array; return any other text unchanged."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def shown(value: Any) -> str:
    """Return a string unchanged, and any other value as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def explained(error: ProgramError) -> str:
    """Return an error as text, with its line and hint."""
    position = f" (line {error.line})" if error.line else ""
    return f"{error.name}{position}: {error.message}" + (f"\n{error.hint}" if error.hint else "")
