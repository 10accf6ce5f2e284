"""Guards of kind `mcp`: a tool of a configured server checks the content.

Executor calls the tool itself, with the server's own limits. The call belongs to no caller: it has
no price, no rules and no guards, so a guard cannot lead to another check.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from toolbus_common.config.guards.services import McpOptions
from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.guard_services.adapters.base import (
    CheckedContent,
    Limits,
    ServiceFindings,
    decoded,
    invalid,
)
from toolbus_executor.guard_services.adapters.requests import request_about
from toolbus_executor.guard_services.adapters.responses import findings_of

MOST_TEXTS = 10_000


class CallTool(Protocol):
    """A function that calls a tool of a configured server. Raises `ToolbusError`."""

    async def __call__(
        self, server: str, tool: str, arguments: dict[str, Any], seconds: float
    ) -> bytes:
        """Return the raw result of the call."""
        ...


class McpService:
    """A tool of a configured server."""

    def __init__(self, call_tool: CallTool, server: str, tool: str, options: McpOptions) -> None:
        self._call_tool = call_tool
        self._server, self._tool = server, tool
        self._options = options
        self.limits = Limits(options.longest, options.longest, MOST_TEXTS, joined=False)
        self.depends_on_call = True

    async def check(
        self, checked: CheckedContent, texts: Sequence[str], seconds: float
    ) -> ServiceFindings:
        """Call the tool with these texts. Its result is structured, or one text with JSON."""
        arguments = request_about(checked, texts, self._options.send)
        raw = await self._call_tool(self._server, self._tool, arguments, seconds)
        return findings_of(_verdict_of(decoded(raw)), len(texts))

    def close(self) -> None:
        """Do nothing: the connection belongs to the server."""


def _verdict_of(result: Any) -> dict[str, Any]:
    if not isinstance(result, dict):
        raise invalid("the result is not an object")
    if result.get("isError"):
        raise UpstreamInvalidError(
            "The tool reported an error; call it with 'toolbus call' to see the reason."
        )
    verdict = result.get("structuredContent")
    if verdict is None:
        content = result.get("content")
        first = content[0] if isinstance(content, list) and content else None
        text = first.get("text") if isinstance(first, dict) else None
        verdict = decoded(text.encode()) if isinstance(text, str) else None
    if not isinstance(verdict, dict):
        raise invalid("the result has neither structured content nor a text with a JSON object")
    return verdict
