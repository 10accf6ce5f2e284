"""A demo MCP server over stdio that returns the time: `python -m toolbus_demo.clock`."""

import asyncio
import json
import sys
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from toolbus_demo.protocol import DemoServer, DemoTool, Progress

LONGEST_SLEEP = 60.0  # seconds


async def now(arguments: dict[str, Any], _progress: Progress) -> str:
    """Return the time in a zone, by default UTC."""
    zone = str(arguments.get("zone", "UTC"))
    try:
        return datetime.now(ZoneInfo(zone)).isoformat(timespec="seconds")
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(f"There is no time zone {zone!r}; try Europe/Oslo.") from error


async def sleep(arguments: dict[str, Any], progress: Progress) -> str:
    """Wait, and send ten progress notifications."""
    seconds = min(float(arguments.get("seconds", 1)), LONGEST_SLEEP)
    for step in range(10):
        await progress.tell(step, 10)
        await asyncio.sleep(seconds / 10)
    return f"slept {seconds:g} s"


SERVER = DemoServer(
    "clock",
    [
        DemoTool("now", "Return the current time.", {"zone": {"type": "string"}}, now),
        DemoTool(
            "sleep",
            "Wait for a number of seconds and report progress.",
            {"seconds": {"type": "number"}},
            sleep,
        ),
    ],
)


def _write(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
    sys.stdout.flush()


async def _notify(message: dict[str, Any]) -> None:
    _write(message)


async def _answer(line: bytes) -> None:
    try:
        answer = await SERVER.answer(json.loads(line), _notify)
    except json.JSONDecodeError:
        answer = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "not JSON"}}
    if answer is not None:
        _write(answer)


async def serve() -> None:
    """Handle lines of standard input concurrently, until it ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    under_way: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(_answer(line))
        under_way.add(task)
        task.add_done_callback(under_way.discard)


if __name__ == "__main__":
    asyncio.run(serve())
