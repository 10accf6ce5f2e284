"""Log output of all processes in one stream, prefixed with the process, as text or JSON."""

import json
import os
import re
import sys
from typing import Any, TextIO

from toolbus_common.observability.logging import redacted

_COLOURS = ("36", "35", "34", "32", "33", "96", "95", "94")
_LOUD = {"warning": "33", "error": "31", "critical": "31"}
_RANKS = {"debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 4}
_SHOWN_ELSEWHERE = frozenset({"at", "level", "service", "event", "exception", "color_message"})
# Engines log a lot; only their warnings and errors are printed.
_ENGINE_TROUBLE = re.compile(
    r"\[(WRN|ERR|FTL)\]|^nats-server: |# (?!WARNING Memory overcommit)|\bfatal\b|cannot start",
    re.IGNORECASE,
)


class LogPrinter:
    """Printer of log lines on standard error, as text (coloured on a terminal) or as JSON."""

    def __init__(self, form: str = "text", level: str = "info", out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._json = form == "json"
        self._least = _RANKS.get(level.lower(), 1)
        self._coloured = not self._json and self._out.isatty() and "NO_COLOR" not in os.environ
        self._colours: dict[str, str] = {}

    def note(self, message: str, level: str = "info") -> None:
        """Log a message of the launcher."""
        self._structured("toolbus", {"level": level, "service": "toolbus", "event": message})

    def service(self, name: str, line: str) -> None:
        """Log an output line of a service: a structured event, or plain text of a crash."""
        try:
            data = json.loads(line)
        except ValueError:
            data = None
        if isinstance(data, dict) and "event" in data:
            self._structured(name, data)
        elif line.strip():
            self._plain(name, line)

    def engine(self, name: str, line: str) -> None:
        """Log an output line of an engine if it is a warning or an error."""
        if _ENGINE_TROUBLE.search(line):
            self._plain(name, line)

    def _structured(self, name: str, data: dict[str, Any]) -> None:
        level = str(data.get("level", "info"))
        if _RANKS.get(level, 1) < self._least:
            return
        if self._json:
            self._write(json.dumps(data, ensure_ascii=False))
            return
        fields = " ".join(f"{k}={v}" for k, v in data.items() if k not in _SHOWN_ELSEWHERE)
        event = self._paint(str(data["event"]), _LOUD.get(level, ""))
        self._plain(name, f"{event} {fields}".rstrip())
        for line in str(data.get("exception", "")).splitlines():
            self._plain(name, f"  {line}")

    def _plain(self, name: str, text: str) -> None:
        if self._json:
            data = {"level": "warning", "service": name, "event": "output", "text": text}
            self._write(json.dumps(data, ensure_ascii=False))
            return
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        self._write(f"{self._paint(f'{_short(name):10}', colour)} │ {text}")

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured and colour else text

    def _write(self, line: str) -> None:
        self._out.write(redacted(line) + "\n")
        self._out.flush()


def _short(name: str) -> str:
    """Return a short process name: the first service if the process runs several."""
    return name.partition("+")[0] if len(name) > len("executor+") else name
