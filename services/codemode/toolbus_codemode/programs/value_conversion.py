"""Between results of tools and values of programs, and what an agent is told in the end."""

from typing import Any

import msgspec

from toolbus_codemode.results.large_result_reader import uri_in
from toolbus_codemode.sandbox.program import Failure, ProgramError, ToolOutcome

LONGEST_MESSAGE = 2_000


def outcome_of(body: bytes) -> ToolOutcome:
    """A tool's result as a program sees it: its structure, else its text, read if it is JSON."""
    result = msgspec.json.decode(body)
    # A large structure is an error to clients that insist on its schema, and a link to programs.
    if result.get("isError") and uri_in(result.get("content")) is None:
        message = _texts(result) or "The tool reports an error without saying which."
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
    """JSON as what it says; any other text, and a bare number or word, as it stands."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def shown(value: Any) -> str:
    """A result as text: JSON, or the text it is."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def explained(error: ProgramError) -> str:
    """An error with its line, and what to do about it."""
    place = f" (line {error.line})" if error.line else ""
    return f"{error.name}{place}: {error.message}" + (f"\n{error.hint}" if error.hint else "")
