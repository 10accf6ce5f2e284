"""The configuration a newcomer starts with: two small servers, and a key that may not do all."""

import json
import sys
from pathlib import Path

KEY = "demo"
_TEXT = """\
# Written by `toolbus up` because there was no toolbus.yaml: copy it there and make it yours.
servers:
  clock: {{command: {clock}, sessions: shared}}  # keeps no state: one process for all
  notes: {{url: "http://127.0.0.1:{port}/mcp"}}
keys:
  demo:   # its secret was made at the first start; `toolbus keys rotate demo` makes another
    tools: ["clock__*", "notes__add", "notes__list"]   # notes__clear is not among them
    budget: {{usd: 1, per: day}}
    rate: {{calls: 60, per: minute}}
prices: {{"notes__add": 0.01, "*": 0}}
"""


def write(path: Path, notes_port: int) -> None:
    """Lay the demo's file down, for these servers."""
    clock = json.dumps([sys.executable, "-P", "-m", "toolbus_demo.clock"])
    path.write_text(_TEXT.format(clock=clock, port=notes_port))


def notes_command(port: int) -> list[str]:
    """How the demo's HTTP server is started."""
    return [sys.executable, "-P", "-m", "toolbus_demo.notes", "--port", str(port)]
