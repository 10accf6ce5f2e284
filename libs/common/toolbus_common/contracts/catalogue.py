"""What the executor publishes about each server: its state and its tools, in the KV bucket."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from toolbus_common.contracts.message import Message


class ServerState(StrEnum):
    """Where a server stands, as operators see it."""

    CONNECTING = "connecting"
    READY = "ready"
    STALE = "stale"  # unreachable, its last known tools are still listed
    FAILED = "failed"  # never reached


class Tool(Message):
    """One tool: its name at the server, and its whole definition as the server sent it."""

    name: str
    definition: dict[str, Any]


class Listing(Message):
    """One server's entry in the catalogue bucket, under the server's name."""

    server: str
    state: ServerState
    era: str = ""
    version: str = ""
    instructions: str = ""
    reason: str = ""
    dropped: dict[str, str] = Field(default_factory=dict)  # tool name -> why it is not listed
    tools: tuple[Tool, ...] = ()
