"""Events about programs: that one began, and how it ended and what it used."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.events.base import CallEvent


class RunEvent(CallEvent):
    """What every event about a program has: `call_id` is that of the call that carried it.

    `program_digest` is SHA-256 in hex of its text, of so many `lines`.
    """

    PERSON: ClassVar[str] = "user"

    team: str = ""
    user: str = ""
    environment: str = ""
    engine: str = ""
    program_digest: str = ""
    lines: int = 0


class RunStarted(RunEvent):
    """A program begins. `program` is its text, only where its key has `content: full`."""

    NAME: ClassVar[str] = "run.started"
    CONTENT: ClassVar[tuple[str, ...]] = ("program",)

    program: str = Field(default="", repr=False)


class RunEnded(RunEvent):
    """What a program used. Of its `calls` policy `refused` some, and others `failed`.

    `cost` is micro-dollars as counted against its cap: a call whose outcome was not told counts in
    full. `latency_us` is the time it took, `cpu_us` what it computed in that. `kept` of its
    results were too large to be told.
    """

    calls: int = 0
    refused: int = 0
    failed: int = 0
    cost: int = 0
    latency_us: int = 0
    cpu_us: int = 0
    output_bytes: int = 0
    kept: int = 0


class RunCompleted(RunEnded):
    """A program came to its end."""

    NAME: ClassVar[str] = "run.completed"


class RunFailed(RunEnded):
    """A program was ended, at `at_line` of it where that is known, by the error `code`."""

    NAME: ClassVar[str] = "run.failed"
    CONTENT: ClassVar[tuple[str, ...]] = ("reason",)

    code: str
    reason: str = ""
    at_line: int = 0
