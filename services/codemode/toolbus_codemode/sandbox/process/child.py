"""The child: one process, one program. It was forked from the zygote and never comes back."""

import os

from toolbus_codemode.sandbox.linux.hardening import Confinement, close_all_but, harden
from toolbus_codemode.sandbox.protocol import (
    HEADER,
    OUT_OF_MEMORY,
    Call,
    Calls,
    Outcome,
    Outcomes,
    ProgramFailed,
    Spoken,
    Start,
    framed,
    told,
)
from toolbus_codemode.sandbox.starlark.engine import Run

LARGEST_START = 4 << 20
FAILED = 3
# How the engine panics when it asks for more than there is, or than a value may have.
STARVED = {
    "out of memory",
    "capacity overflow",
    "AlignedSize must not exceed u32::MAX",
    "PyObject pointer is null",
}


def warm() -> None:
    """Run a program of ours, one that ends and one that fails."""
    for source in ("1 + 1", "nope"):
        Run(Start(source, {}, 5.0, 1, 1 << 20, 1 << 20, 0), lambda _: ()).run()


class MessageTooLargeError(Exception):
    """A message of ours is larger than may be sent."""


class Line:
    """The one descriptor left: messages to the service and from it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.largest = LARGEST_START

    def read(self, wanted: int) -> bytes:
        """Exactly that many bytes; the service's end is ours."""
        parts = []
        while wanted:
            part = os.read(self.descriptor, min(wanted, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    def hear(self) -> Start | Outcomes:
        """The next message of the service."""
        length = int.from_bytes(self.read(HEADER), "big")
        message: Start | Outcomes = told.decode(self.read(length))
        return message

    def say(self, message: Spoken) -> None:
        """Send a message, if it is not too large."""
        frame = memoryview(framed(message))
        if len(frame) > self.largest:
            raise MessageTooLargeError
        while frame:
            frame = frame[os.write(self.descriptor, frame) :]

    def ask(self, calls: tuple[Call, ...]) -> tuple[Outcome, ...]:
        """Have calls made, and wait for all of them."""
        self.say(Calls(calls))
        heard = self.hear()
        return heard.outcomes if isinstance(heard, Outcomes) else ()


def run(line: Line) -> None:
    """Hear a program, run it, tell how it ended."""
    start = line.hear()
    if not isinstance(start, Start):
        return
    line.largest = start.message
    running = Run(start, line.ask)
    try:
        ended = running.run()
    except MemoryError:
        ended = ProgramFailed("memory", "The program used more memory than it may.")
    try:
        line.say(ended)
    except MessageTooLargeError:
        line.say(ProgramFailed("message_too_large", "The result is larger than a message may be."))
    line.read(1)  # the service looks at what this process used, and ends it


def be_child(descriptor: int, held: Confinement) -> None:
    """Harden, run, leave. What the engine raises is not told: its text may be anybody's."""
    try:
        line = Line(close_all_but(descriptor))
        harden(held)
        warm()  # a child that waits has its pages by the time its program comes
        run(line)
    except BaseException as error:  # noqa: BLE001 - a panic of the engine is a BaseException
        os._exit(OUT_OF_MEMORY if starved(error) else FAILED)
    os._exit(0)


def starved(error: BaseException) -> bool:
    """Whether it was memory that an allocator of ours or of the engine did not get."""
    return isinstance(error, MemoryError) or str(error) in STARVED
