"""The standard error of a server's process: for the operator's log, and for nobody else.

A program prints there what it was given: secrets, and arguments of whoever called it. So nothing
of it is part of a reason, an event or an answer; known secrets and what has the form of personal
data are struck from it before it is logged.
"""

import asyncio
import errno
import logging
import os
from collections import deque
from collections.abc import Callable
from time import monotonic

from toolbus_common.privacy.known_secrets import KnownSecrets
from toolbus_common.privacy.redaction import struck
from toolbus_common.web.json_view import visible

log = logging.getLogger(__name__)

LONGEST_LINE = 500  # bytes of a line that are logged
BURST, PER_SECOND = 50, 5  # lines that are logged at once, and from then on
LAST_LINES = 20  # that are logged in any case once it has ended
GATHER_SECONDS = 0.25  # lines of one moment are searched together: a secret may be cut over them
_OVERLAP = 64  # characters of the lines before that are searched with them
_OWN = b"isolation: "
_REFUSED, _FAILED = _OWN + b"refused: ", _OWN + b"cannot start: "
_UNVERIFIED = _OWN + b"image not verified"
_ENDED_BY = {_OWN + f"ended by {each}".encode(): each for each in ("cpu_seconds", "memory")}


class StandardError:
    """Takes what one process writes there: its supervisor's reports, then the program's lines."""

    def __init__(self, server: str = "", secrets: KnownSecrets | None = None) -> None:
        self.held: dict[str, bool] = {}  # what it is held to, as soon as its program begins
        self.ended_by = ""  # the limit it went beyond
        self.refused = ""  # why its program was not started, in the supervisor's words
        self.printed = False
        self.hear: Callable[[bytes], None] = lambda _line: None  # each line of the program's
        self._server = server
        self._secrets = secrets or KnownSecrets()
        self._rest = b""
        self._lines: list[str] = []
        self._before = ""
        self._omitted = 0
        self._latest: deque[str] = deque(maxlen=LAST_LINES)  # of those omitted
        self._may, self._at = float(BURST), monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, piece: bytes) -> None:
        """Take a piece; what a line has beyond its bound is left out."""
        *lines, rest = (self._rest + piece).split(b"\n")
        self._rest = rest[:LONGEST_LINE]
        for line in lines:
            self._take(line)

    def end(self) -> None:
        """Log what is left, the last lines in any case: they say why a process ended."""
        self._take(self._rest)
        self._rest = b""
        omitted, self._omitted = self._omitted, 0
        if omitted > len(self._latest):
            about = {"server": self._server, "lines": omitted - len(self._latest)}
            log.warning("upstream.stderr_omitted", extra=about)
        self._lines += self._latest
        self._latest.clear()
        self._flush()

    def _take(self, line: bytes) -> None:
        if line.startswith(_OWN) and self._report(line):
            return
        self.hear(line[:LONGEST_LINE])
        text = line[:LONGEST_LINE].decode("utf-8", "replace").strip()
        if not text:
            return
        self.printed = True
        if not self._allows():
            self._omitted += 1
            self._latest.append(text)
            return
        self._lines.append(text)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush)

    def _report(self, line: bytes) -> bool:
        """Take a report of the supervisor. Once the program runs, only fixed ones are taken."""
        if not self.held:
            if line.startswith(_REFUSED):
                self.refused = line.removeprefix(_REFUSED).decode("utf-8", "replace")
            else:
                told = line.removeprefix(_OWN).decode("utf-8", "replace").split(", ")
                self.held |= {each[1:]: each[0] == "+" for each in told if each[:1] in ("+", "-")}
            return True
        if line == _UNVERIFIED:
            self.refused = "the signature of its image could not be verified"
            return True
        number = line.removeprefix(_FAILED)
        if number != line and number.isdigit() and int(number) in errno.errorcode:
            self.refused = f"it cannot be started: {os.strerror(int(number))}"
            return True
        self.ended_by = _ENDED_BY.get(line, self.ended_by)
        return line in _ENDED_BY

    def _allows(self) -> bool:
        now = monotonic()
        self._may = min(BURST, self._may + (now - self._at) * PER_SECOND)
        self._at = now
        if self._may < 1:
            return False
        self._may -= 1
        return True

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if not lines:
            return
        shown = self._secrets.struck([self._before, *lines])[1:]
        self._before = "".join(lines)[-_OVERLAP:]
        for line in shown:
            told = {"server": self._server, "line": visible(struck(line))}
            log.info("upstream.stderr", extra=told)
