"""Tools for the programs of the sandbox tests in both languages."""

import asyncio

from toolbus_codemode.sandbox.program import (
    Failure,
    Function,
    Limits,
    Namespace,
    ToolCall,
    ToolOutcome,
)

TOOLS = (
    Namespace(
        "github",
        "git-hub",
        (
            Function("get_issue", "get-issue", ("number", "repo"), 1),
            Function("broken", "broken"),
            Function("missing", "missing"),
            Function("meet", "meet", ("number",), 1),
        ),
    ),
)
AMPLE = Limits(deadline=60.0, cpu=20)


class Tools:
    """The tools of a program. `meet` returns when two calls wait."""

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.met = asyncio.Barrier(2)

    async def call(self, request: ToolCall) -> ToolOutcome:
        self.calls.append(request)
        if request.tool == "broken":
            raise ValueError("a-secret")
        if request.tool == "missing":
            return ToolOutcome(failure=Failure("not_found", "There is no such issue."))
        if request.tool == "meet":
            await self.met.wait()
        return ToolOutcome(request.arguments)
