"""The demo configuration: two small servers, and a key with limited access."""

import json
import sys
from pathlib import Path

KEY = "demo"
_TEXT = """\
# Written by `toolbus up` because there was no toolbus.yaml: copy it there and edit it.
servers:
  clock: {{command: {clock}, sessions: shared}}  # stateless: one process for all
  notes: {{url: "http://127.0.0.1:{port}/mcp"}}
keys:
  demo:   # its secret was created at the first start; `toolbus keys rotate demo` creates a new one
    tools: ["clock__*", "notes__add", "notes__list"]   # notes__clear is not granted
    budget: {{usd: 1, per: day}}
    rate: {{calls: 60, per: minute}}
prices: {{"notes__add": 0.01, "*": 0}}
"""


def write(path: Path, notes_port: int) -> None:
    """Write the demo's configuration file."""
    clock = json.dumps([sys.executable, "-P", "-m", "toolbus_demo.clock"])
    path.write_text(_TEXT.format(clock=clock, port=notes_port))


def notes_command(port: int) -> list[str]:
    """Return the command that starts the demo's HTTP server."""
    return [sys.executable, "-P", "-m", "toolbus_demo.notes", "--port", str(port)]
