"""Reader of a server's standard error. Its text is only for the operator's log.

Programs print secrets and callers' arguments there. Therefore no error message, event or reply
contains this text, and known secrets and personal data are redacted before logging.
"""

import asyncio
import errno
import logging
import os
from collections import deque
from collections.abc import Callable
from time import monotonic

from toolbus_common.privacy.redaction import struck
from toolbus_common.web.json_view import visible
from toolbus_executor.known_secrets import KnownSecrets

log = logging.getLogger(__name__)

LONGEST_LINE = 500  # logged bytes of a line
BURST, PER_SECOND = 50, 5  # lines that are logged at once, and afterwards per second
LAST_LINES = 20  # lines that are always logged when the process has ended
GATHER_SECONDS = 0.25  # lines are redacted together, because a secret can span lines
_OVERLAP = 64  # characters of previous lines that are searched again with the next lines
_OWN = b"isolation: "
_REFUSED, _FAILED = _OWN + b"refused: ", _OWN + b"cannot start: "
_UNVERIFIED = _OWN + b"image not verified"
_ENDED_BY = {_OWN + f"ended by {each}".encode(): each for each in ("cpu_seconds", "memory")}


class StandardError:
    """Reader of one process's standard error.

    The supervisor's reports come first, then the program's lines.
    """

    def __init__(
        self, server: str = "", secrets: KnownSecrets | None = None, denied_hint: str = ""
    ) -> None:
        self.held: dict[str, bool] = {}  # isolation in force; empty until the program starts
        self.ended_by = ""  # the limit that the program exceeded
        self.refused = ""  # the supervisor's reason for not starting the program
        self.printed = False
        self.hint = ""  # `denied_hint`, if the program printed that it was denied a file
        self._denied_hint = denied_hint
        # This function is called with each line of the program.
        self.on_line: Callable[[bytes], None] = lambda _line: None
        self._server = server
        self._secrets = secrets or KnownSecrets()
        self._rest = b""
        self._lines: list[str] = []
        self._before = ""
        self._omitted = 0
        self._latest: deque[str] = deque(maxlen=LAST_LINES)  # the last omitted lines
        self._allowance, self._at = float(BURST), monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, piece: bytes) -> None:
        """Read a piece of the output. Long lines are truncated."""
        *lines, rest = (self._rest + piece).split(b"\n")
        self._rest = rest[:LONGEST_LINE]
        for line in lines:
            self._take_line(line)

    def end(self) -> None:
        """Log the remaining lines at the end of the output.

        The last lines are always logged, because they explain why the process ended.
        """
        self._take_line(self._rest)
        self._rest = b""
        omitted, self._omitted = self._omitted, 0
        if omitted > len(self._latest):
            about = {"server": self._server, "lines": omitted - len(self._latest)}
            log.warning("upstream.stderr_omitted", extra=about)
        self._lines += self._latest
        self._latest.clear()
        self._flush()

    def _take_line(self, line: bytes) -> None:
        if line.startswith(_OWN) and self._report(line):
            return
        self.on_line(line[:LONGEST_LINE])
        text = line[:LONGEST_LINE].decode("utf-8", "replace").strip()
        if not text:
            return
        self.printed = True
        if "permission denied" in text.lower():
            self.hint = self._denied_hint
        if not self._allows():
            self._omitted += 1
            self._latest.append(text)
            return
        self._lines.append(text)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush)

    def _report(self, line: bytes) -> bool:
        """Return whether a line is a report of the supervisor, and store the report.

        After the program has started, only fixed reports are accepted, because the program can
        write them.
        """
        if not self.held:
            if line.startswith(_REFUSED):
                self.refused = line.removeprefix(_REFUSED).decode("utf-8", "replace")
            else:
                fields = line.removeprefix(_OWN).decode("utf-8", "replace").split(", ")
                self.held |= {each[1:]: each[0] == "+" for each in fields if each[:1] in ("+", "-")}
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
        self._allowance = min(BURST, self._allowance + (now - self._at) * PER_SECOND)
        self._at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
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
            fields = {"server": self._server, "line": visible(struck(line))}
            log.info("upstream.stderr", extra=fields)
