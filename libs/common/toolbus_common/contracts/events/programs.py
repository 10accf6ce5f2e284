"""Events about programs of code mode: started, completed or failed, and their use of resources."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.events.base import CallEvent


class RunEvent(CallEvent):
    """Fields of every event about a program. `call_id` is the call whose argument is the program.

    `engine` is its language, `program_digest` SHA-256 of its text in hex, `lines` the number of its
    lines.
    """

    PERSON: ClassVar[str] = "user"

    team: str = ""
    user: str = ""
    environment: str = ""
    engine: str = ""
    program_digest: str = ""
    lines: int = 0


class RunStarted(RunEvent):
    """A program started. Published by codemode.

    `program` is its text, only if its key has `content: full`.
    """

    NAME: ClassVar[str] = "run.started"
    CONTENT: ClassVar[tuple[str, ...]] = ("program",)

    program: str = Field(default="", repr=False)


class RunEnded(RunEvent):
    """Resources that a program used. `denied` and `failed` count some of its `calls`.

    `cost` is in micro-dollars, as counted against the program's limit: a call without a known
    outcome counts in full. `latency_us` is its duration and `cpu_us` its CPU time, in microseconds.
    `output_bytes` is the size of its output. `stored` is the number of results that were too large
    to return and were stored.
    """

    calls: int = 0
    denied: int = 0
    failed: int = 0
    cost: int = 0
    latency_us: int = 0
    cpu_us: int = 0
    output_bytes: int = 0
    stored: int = 0


class RunCompleted(RunEnded):
    """A program completed. Published by codemode."""

    NAME: ClassVar[str] = "run.completed"


class RunFailed(RunEnded):
    """A program failed with the error `code`, at line `at_line` if known. Published by codemode."""

    NAME: ClassVar[str] = "run.failed"
    CONTENT: ClassVar[tuple[str, ...]] = ("reason",)

    code: str
    reason: str = ""
    at_line: int = 0
