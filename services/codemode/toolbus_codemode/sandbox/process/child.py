"""Child of the zygote, which runs one program and exits."""

import os

from toolbus_codemode.sandbox.linux.hardening import Confinement, close_all_but, harden
from toolbus_codemode.sandbox.protocol import (
    HEADER,
    OUT_OF_MEMORY,
    Call,
    Calls,
    Message,
    Outcome,
    Outcomes,
    ProgramFailed,
    Start,
    service_decoder,
    with_length,
)
from toolbus_codemode.sandbox.starlark.engine import Run

LARGEST_START = 4 << 20
FAILED = 3
# Panics of the engine when memory or the size of a value is exhausted.
STARVED = {
    "out of memory",
    "capacity overflow",
    "AlignedSize must not exceed u32::MAX",
    "PyObject pointer is null",
}


def warm() -> None:
    """Warm up the engine: run one program that completes and one that fails."""
    for source in ("1 + 1", "nope"):
        Run(Start(source, {}, 5.0, 1, 1 << 20, 1 << 20, 0), lambda _: ()).run()


class MessageTooLargeError(Exception):
    """The message exceeds the limit."""


class Connection:
    """Connection to the service over the only open descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.largest = LARGEST_START

    def read(self, wanted: int) -> bytes:
        """Read exactly `wanted` bytes; exit if the service closed the connection."""
        parts = []
        while wanted:
            part = os.read(self.descriptor, min(wanted, 1 << 20))
            if not part:
                os._exit(0)
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    def receive(self) -> Start | Outcomes:
        """Receive the next message."""
        length = int.from_bytes(self.read(HEADER), "big")
        message: Start | Outcomes = service_decoder.decode(self.read(length))
        return message

    def send(self, message: Message) -> None:
        """Send a message. Raises `MessageTooLargeError`."""
        rest = memoryview(with_length(message))
        if len(rest) > self.largest:
            raise MessageTooLargeError
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]

    def run_calls(self, calls: tuple[Call, ...]) -> tuple[Outcome, ...]:
        """Request calls and wait for all outcomes."""
        self.send(Calls(calls))
        message = self.receive()
        return message.outcomes if isinstance(message, Outcomes) else ()


def run(line: Connection) -> None:
    """Receive a program, run it, send its result."""
    start = line.receive()
    if not isinstance(start, Start):
        return
    line.largest = start.message
    running = Run(start, line.run_calls)
    try:
        ended = running.run()
    except MemoryError:
        ended = ProgramFailed("memory", "The program exceeded its memory limit.")
    try:
        line.send(ended)
    except MessageTooLargeError:
        line.send(
            ProgramFailed("message_too_large", "The result exceeds the size limit of a message.")
        )
    line.read(1)  # the service reads the resource use of this process, and kills it


def be_child(descriptor: int, held: Confinement) -> None:
    """Harden the process, run one program, exit.

    Errors of the engine are not sent, because their text may contain data.
    """
    try:
        line = Connection(close_all_but(descriptor))
        harden(held)
        warm()  # touches the memory pages before the program arrives
        run(line)
    except BaseException as error:  # noqa: BLE001 - a panic of the engine is a BaseException
        os._exit(OUT_OF_MEMORY if starved(error) else FAILED)
    os._exit(0)


def starved(error: BaseException) -> bool:
    """Return whether the interpreter or the engine failed to allocate memory."""
    return isinstance(error, MemoryError) or str(error) in STARVED
