"""Events about programs of code mode, and about runs of agent mode, with their resource usage."""

from typing import ClassVar

from pydantic import Field

from toolbus_common.contracts.events.base import CallEvent


class RunEvent(CallEvent):
    """Fields of every event about a program, or about a run of agent mode.

    `call_id` is the call whose argument is the program, or the run. `engine` is the language of the
    program; it is `agent` for a run of agent mode, whose other fields about the program are empty.
    `program_digest` is SHA-256 of its text in hex, and `lines` is the number of its lines.
    """

    PERSON: ClassVar[str] = "user"

    team: str = ""
    user: str = ""
    environment: str = ""
    engine: str = ""
    program_digest: str = ""
    lines: int = 0


class RunStarted(RunEvent):
    """A program started. Codemode publishes this event.

    `program` is the text of the program, if its key has `content: full`.
    """

    NAME: ClassVar[str] = "run.started"
    CONTENT: ClassVar[tuple[str, ...]] = ("program",)

    program: str = Field(default="", repr=False)


class RunEnded(RunEvent):
    """The resource usage of a program.

    `calls` is the number of its calls; `denied` and `failed` are the numbers of those that were
    denied and that failed. `cost` is in micro-dollars, as counted against the program's limit. A
    call without a known outcome counts in full. `latency_us` is the duration and `cpu_us` is the
    CPU time, both in microseconds. `output_bytes` is the size of the output. `stored` is the number
    of results that were stored because they were too large to return.
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
    """A program completed. Codemode publishes this event."""

    NAME: ClassVar[str] = "run.completed"


class RunFailed(RunEnded):
    """A program failed with the error `code`, at line `at_line` if it is known.

    Codemode publishes this event.
    """

    NAME: ClassVar[str] = "run.failed"
    CONTENT: ClassVar[tuple[str, ...]] = ("reason",)

    code: str
    reason: str = ""
    at_line: int = 0
