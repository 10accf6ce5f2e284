"""Token counter in a separate process.

Loading the vocabulary blocks an interpreter for a second, and counting blocks it for milliseconds.
In the process of the service, both would delay calls.
"""

import os
import signal
import subprocess
import sys
from typing import IO

from toolbus_codemode.sandbox.process.launcher import KEPT_ENVIRONMENT
from toolbus_codemode.tokens.tokenizer import Tokens

LENGTH = 4
NICENESS = 10  # counts are not urgent


class CountingEndedError(Exception):
    """The process ended during a count; the next count starts another process."""


class CountingProcess:
    """Client of the counting process, which starts at the first text. Not thread-safe."""

    def __init__(self) -> None:
        self.counted_by = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id, if the process runs."""
        return self._process.pid if self._process else None

    def of(self, text: str) -> int:
        """Return the number of tokens of a text. Raises `CountingEndedError`."""
        whole = text.encode(errors="replace")
        process = self._process or self._started()
        try:
            _into(process).write(len(whole).to_bytes(LENGTH) + whole)
            _into(process).flush()
            count = _out_of(process).read(LENGTH)
        except OSError:
            count = b""
        if len(count) != LENGTH:
            self.close()
            raise CountingEndedError
        return int.from_bytes(count)

    def close(self) -> None:
        """End the process, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _started(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(  # noqa: S603 - a module of this package, no shell
            [sys.executable, "-I", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ},
        )
        self.counted_by = _out_of(self._process).readline().decode().strip()
        return self._process


def _into(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None  # noqa: S101 - the pipe was requested
    return process.stdin


def _out_of(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None  # noqa: S101 - the pipe was requested
    return process.stdout


def main() -> None:
    """Write the name of the vocabulary, then a count for each text until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ends with the service, not with a key press
    os.nice(NICENESS)
    tokens = Tokens()
    texts, counts = sys.stdin.buffer, sys.stdout.buffer
    counts.write(tokens.counted_by.encode() + b"\n")
    counts.flush()
    while head := texts.read(LENGTH):
        text = texts.read(int.from_bytes(head)).decode()
        counts.write(tokens.of(text).to_bytes(LENGTH))
        counts.flush()


if __name__ == "__main__":
    main()
