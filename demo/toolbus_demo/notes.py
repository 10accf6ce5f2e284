"""A demo MCP server over streamable HTTP for notes: `python -m toolbus_demo.notes --port N`."""

import argparse
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

MAX_NOTES = 1_000
LARGEST_BODY = 1 << 20

notes: list[str] = []
server = MCPServer("notes", version="1", log_level="WARNING")


@server.tool(structured_output=False)
def add(text: Annotated[str, Field(min_length=1)]) -> str:
    """Add a note."""
    if len(notes) >= MAX_NOTES:
        raise ToolError(f"The limit of {MAX_NOTES} notes is reached; clear them first.")
    notes.append(text)
    return f"note {len(notes)} is stored"


@server.tool(name="list", structured_output=False)
def list_notes() -> str:
    """Show all notes."""
    return "\n".join(notes) or "no notes yet"


@server.tool(structured_output=False)
def clear() -> str:
    """Delete all notes."""
    notes.clear()
    return "all notes are gone"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9010)
    server.run(
        "streamable-http",
        port=parser.parse_args().port,
        stateless_http=True,
        json_response=True,
        max_request_body_size=LARGEST_BODY,
    )
