"""Input and output lines of a stdio client; the length of input lines is limited."""

import os
from collections.abc import Iterator
from threading import Lock
from typing import BinaryIO

LONGEST = 16 * 1024 * 1024  # bytes


def read_lines(source: BinaryIO, longest: int = LONGEST) -> Iterator[bytes | None]:
    """Yield each non-blank line; yield None for a line that exceeds `longest` bytes."""
    while line := source.readline(longest + 1):
        if len(line) > longest and not line.endswith(b"\n"):
            _skip(source, longest)
            yield None
        elif line.strip():
            yield line.strip()


def _skip(source: BinaryIO, longest: int) -> None:
    """Read to the end of a line and discard it."""
    while (rest := source.readline(longest)) and not rest.endswith(b"\n"):
        pass


class Output:
    """Standard output of the bridge: one line per message; safe for several threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = Lock()
        self.gone = False  # the reader closed its end

    def say(self, message: bytes) -> None:
        """Write one JSON message as a line; line breaks between JSON tokens become spaces."""
        line = message.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"
        with self._lock:
            try:
                while line and not self.gone:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                self.gone = True
