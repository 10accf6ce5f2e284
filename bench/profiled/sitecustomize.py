"""Call counters of a Python process, started and stopped by signals (`bench/call_profile.py`).

Python imports this module at start if its folder is in PYTHONPATH. SIGUSR1 starts the counters.
SIGUSR2 stops them and writes `<pid>.json` into the directory that TOOLBUS_BENCH_PROFILE names.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

COROUTINE = 0x80  # inspect.CO_COROUTINE; the import of inspect would take milliseconds
RESUME_KIND = 3  # bits of RESUME's argument: 0 at the start of a function, else after a yield


class Counters:
    """Started and resumed Python frames by code object, and created asyncio tasks."""

    def __init__(self) -> None:
        self._started: dict[CodeType, int] = {}
        self._resumed: dict[CodeType, int] = {}
        self._bytecode: dict[CodeType, bytes] = {}
        self._tasks = 0

    def start(self, *_: Any) -> None:
        """Start counting in the thread of the event loop."""
        asyncio.get_running_loop().set_task_factory(self._task)
        sys.setprofile(self._event)

    def stop(self, *_: Any) -> None:
        """Stop counting and write the counts; the renamed file is complete."""
        sys.setprofile(None)
        asyncio.get_running_loop().set_task_factory(None)
        codes = {**self._started, **self._resumed}
        report = {
            "tasks": self._tasks,
            "functions": [
                {
                    "file": code.co_filename,
                    "name": code.co_qualname,
                    "started": self._started.get(code, 0),
                    "resumed": self._resumed.get(code, 0),
                    "coroutine": bool(code.co_flags & COROUTINE),
                }
                for code in codes
                if code.co_filename != __file__
            ],
        }
        directory = Path(os.environ["TOOLBUS_BENCH_PROFILE"])
        part = directory / f"{os.getpid()}.part"
        part.write_text(json.dumps(report))
        part.rename(part.with_suffix(".json"))
        self.__init__()  # type: ignore[misc]  # a process can be counted several times

    def _event(self, frame: FrameType, kind: str, _argument: Any) -> None:
        if kind != "call":
            return
        code, at = frame.f_code, frame.f_lasti
        bytecode = self._bytecode.get(code)
        if bytecode is None:  # `co_code` is a copy
            bytecode = self._bytecode[code] = code.co_code
        resumed = at >= 0 and bytecode[at + 1] & RESUME_KIND
        counts = self._resumed if resumed else self._started
        counts[code] = counts.get(code, 0) + 1

    def _task(self, loop: asyncio.AbstractEventLoop, work: Any, **given: Any) -> asyncio.Task[Any]:
        self._tasks += 1
        return asyncio.Task(work, loop=loop, **given)


if "TOOLBUS_BENCH_PROFILE" in os.environ:
    counters = Counters()
    signal.signal(signal.SIGUSR1, counters.start)
    signal.signal(signal.SIGUSR2, counters.stop)
