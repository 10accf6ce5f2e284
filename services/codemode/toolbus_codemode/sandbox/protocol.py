"""Messages between the service and the process that runs one program: length, then JSON.

The service validates everything it reads: a program that broke out of its engine can write any
bytes.
"""

from typing import Any

import msgspec

HEADER = 4
IDEMPOTENCY = "toolbus_idempotency_key"  # an additional parameter of every tool
OUT_OF_MEMORY = 4  # exit status of a child without memory to send a message


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base of all messages."""


class Tool(msgspec.Struct, frozen=True):
    """Function of a namespace; the first `required` parameters are required."""

    name: str
    parameters: tuple[str, ...]
    required: int


class Start(Message, frozen=True):
    """Service to child: the program, with the namespaces that its source names."""

    source: str
    namespaces: dict[str, tuple[Tool, ...]]
    deadline: float
    calls: int
    message: int
    output: int
    memory: int


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Call requested by a program, with its identifiers."""

    id: int
    namespace: str
    function: str
    arguments: dict[str, Any]


class Calls(Message, frozen=True):
    """Child to service: calls to make concurrently."""

    calls: tuple[Call, ...]
    printed: str = ""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """Outcome of one call."""

    id: int
    value: Any = None
    code: str = ""
    message: str = ""


class Outcomes(Message, frozen=True):
    """Service to child: outcomes of a batch of calls (Starlark) or of one call (Python)."""

    outcomes: tuple[Outcome, ...]


class Done(Message, frozen=True):
    """Child to service: the program completed; the result is raw JSON."""

    value: msgspec.Raw
    printed: str = ""


class ProgramFailed(Message, frozen=True):
    """Child to service: the program failed."""

    name: str
    message: str
    line: int | None = None
    column: int | None = None
    subject: str = ""
    printed: str = ""


ChildMessage = Calls | Done | ProgramFailed
ServiceMessage = Start | Outcomes

child_decoder = msgspec.json.Decoder(ChildMessage)
service_decoder = msgspec.json.Decoder(ServiceMessage)


def with_length(message: Message) -> bytes:
    """Encode a message with its length in front."""
    body = msgspec.json.encode(message)
    return len(body).to_bytes(HEADER, "big") + body
