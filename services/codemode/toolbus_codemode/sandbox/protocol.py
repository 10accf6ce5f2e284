"""The messages between the service and the process that runs one program: length, then JSON.

The service trusts nothing it reads here: a program that broke its engine can write what it likes.
"""

from typing import Any

import msgspec

HEADER = 4
IDEMPOTENCY = "toolbus_idempotency_key"  # what every tool takes beside its own parameters
OUT_OF_MEMORY = 4  # the status of a child that could tell no more than this


class Spoken(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Any message."""


class Tool(msgspec.Struct, frozen=True):
    """A function of a namespace, as the engine binds it."""

    name: str
    parameters: tuple[str, ...]
    required: int


class Start(Spoken, frozen=True):
    """Service to child: the program. Namespaces the source does not name are left out."""

    source: str
    namespaces: dict[str, tuple[Tool, ...]]
    deadline: float
    calls: int
    message: int
    output: int
    memory: int


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call a program asks for, by the names it knows."""

    id: int
    namespace: str
    function: str
    arguments: dict[str, Any]


class Calls(Spoken, frozen=True):
    """Child to service: calls to make at once."""

    calls: tuple[Call, ...]
    printed: str = ""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one call came to."""

    id: int
    value: Any = None
    code: str = ""
    message: str = ""


class Outcomes(Spoken, frozen=True):
    """Service to child: results of calls. Starlark gets all of a batch, Python one at a time."""

    outcomes: tuple[Outcome, ...]


class Done(Spoken, frozen=True):
    """Child to service: the program came to its end; the result is raw JSON."""

    value: msgspec.Raw
    printed: str = ""


class ProgramFailed(Spoken, frozen=True):
    """Child to service: the program ended early."""

    name: str
    message: str
    line: int | None = None
    column: int | None = None
    subject: str = ""
    printed: str = ""


Heard = Calls | Done | ProgramFailed
Told = Start | Outcomes

heard = msgspec.json.Decoder(Heard)
told = msgspec.json.Decoder(Told)


def framed(message: Spoken) -> bytes:
    """A message with its length before it."""
    body = msgspec.json.encode(message)
    return len(body).to_bytes(HEADER, "big") + body
