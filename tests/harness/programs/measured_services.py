"""Services that report their memory and tasks on SIGUSR1, and leak 1 KB an event after SIGUSR2.

Usage: `python measured_services.py SERVICE…`. The report is written to `MEASURED_DIR/PID.json`.
With `MEASURED_TRACE`, it has the bytes that Python code has allocated, exactly, and every call
takes longer.
"""

import asyncio
import gc
import json
import os
import signal
import sys
import tracemalloc
from pathlib import Path
from typing import Any

from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.service.process import run

LEAK_BYTES = 1024
_leaked: list[bytes] = []
_line = EventPublisher._line


def _report(*_: object) -> None:
    gc.collect()
    report = {
        "tasks": sum(isinstance(each, asyncio.Task) for each in gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
        "bytes": tracemalloc.get_traced_memory()[0],
    }
    path = Path(os.environ["MEASURED_DIR"]) / f"{os.getpid()}.json"
    path.with_suffix(".new").write_text(json.dumps(report))
    path.with_suffix(".new").rename(path)


def _leaking(publisher: EventPublisher, event: Any) -> Any:
    _leaked.append(os.urandom(LEAK_BYTES))
    return _line(publisher, event)


def _leak(*_: object) -> None:
    setattr(EventPublisher, "_line", _leaking)  # noqa: B010 - mypy knows no other way


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _report)
    signal.signal(signal.SIGUSR2, _leak)
    if "MEASURED_TRACE" in os.environ:
        tracemalloc.start()
    sys.exit(run(sys.argv[1:]))
