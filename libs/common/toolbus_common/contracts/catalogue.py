"""What the executor publishes about each server: its state and what it offers, in the KV bucket."""

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


class Offered(Message):
    """One thing a server offers, by its name or URI there, and its whole definition as sent."""

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
    capabilities: dict[str, Any] = Field(default_factory=dict)  # as the server declared them
    dropped: dict[str, str] = Field(default_factory=dict)  # name -> why it is not listed
    tools: tuple[Offered, ...] = ()
    prompts: tuple[Offered, ...] = ()
    resources: tuple[Offered, ...] = ()  # by URI
    templates: tuple[Offered, ...] = ()  # by URI template
