"""A demo MCP server over stdio that returns the time: `python -m toolbus_demo.clock`."""

import asyncio
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

STEPS = 10

server = MCPServer("clock", version="1", log_level="WARNING")


@server.tool(structured_output=False)
def now(zone: Annotated[str, Field(description="A name such as Europe/Oslo.")] = "UTC") -> str:
    """Return the current time."""
    try:
        return datetime.now(ZoneInfo(zone)).isoformat(timespec="seconds")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ToolError(f"There is no time zone {zone!r}; try Europe/Oslo.") from error


@server.tool(structured_output=False)
async def sleep(context: Context, seconds: Annotated[float, Field(ge=0, le=60)] = 1.0) -> str:
    """Wait for a number of seconds and report progress."""
    for step in range(STEPS):
        await context.report_progress(step, STEPS)
        await asyncio.sleep(seconds / STEPS)
    return f"slept {seconds:g} s"


if __name__ == "__main__":
    server.run("stdio")
