"""Structured logs: one JSON object per line, with secrets redacted by the formatter."""

import json
import logging
import re
import sys
import time
from typing import Any

from toolbus_common.observability.trace_context import span_id, trace_id
from toolbus_common.observability.tracing.context import bound

_SECRETS = re.compile(
    r"tb[ka]_[A-Za-z0-9_-]{6,}"  # API keys and admin keys of Toolbus
    r"|(?i:bearer)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|\bS[UACONX][A-Z2-7]{50,}"  # nkey seeds
    r"|(?i:(?<=password=)|(?<=secret=)|(?<=token=)|(?<=api_key=))[^\s&\"',]{4,}"
    r"|(?<=://)[^/\s:@\"]*:[^@/\s\"]+(?=@)"  # credentials inside a URL
)
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def redacted(text: str) -> str:
    """Return the text with everything that looks like a credential redacted."""
    return _SECRETS.sub("[redacted]", text)


class JsonFormatter(logging.Formatter):
    """Formats the event name, level, service and fields as one redacted JSON object."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the log record as one line."""
        line: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "event": record.getMessage(),
        }
        trace = bound()
        if trace:
            line |= {"trace_id": trace_id(trace), "span_id": span_id(trace)}
        line |= {
            name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redacted(json.dumps(line, default=str, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """Formats the event name, level and fields for a terminal, with secrets redacted."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the log record as one line, followed by the traceback if there is one."""
        fields = " ".join(f"{k}={v}" for k, v in vars(record).items() if k not in _STANDARD_FIELDS)
        line = f"{record.levelname.lower():7} {record.getMessage()} {fields}".rstrip()
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return redacted(line)


def configure(service: str, level: str = "info", form: str = "json") -> None:
    """Write all logs of this process to standard error, in the form `json` or `text`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("nats", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
