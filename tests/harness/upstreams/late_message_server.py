"""Session-based server on stdio that sends messages for a call after the call has ended.

`leave` returns immediately and starts a background job. The next call of `stay` makes the job send
messages while that call is in progress. `linger` sends messages after its cancellation.
"""

import asyncio
from typing import Any

from fastmcp import Context, FastMCP
from mcp.server.lowlevel import server as low_level
from mcp.server.runner import serve_loop

FORM: Any = {"type": "object", "properties": {"ok": {"type": "boolean"}}}
server = FastMCP("late")
# In the same way as SDKs that support only the revisions with a handshake.
setattr(low_level, "serve_dual_era_loop", serve_loop)  # noqa: B010 - it is not exported


class Left:
    """The background jobs of ended calls and their results."""

    def __init__(self) -> None:
        self.jobs: list[asyncio.Task[None]] = []
        self.turn = asyncio.Event()
        self.answers: list[str] = []


left = Left()


async def speak(session: Any, word: str) -> None:
    """Send a log message and an elicitation without the id of a call."""
    await session.send_log_message("warning", word)
    try:
        left.answers.append((await session.elicit_form(word, FORM)).action)
    except Exception as error:  # noqa: BLE001 - that it is refused is what callers look for
        left.answers.append(f"refused: {error}")


async def later(session: Any, word: str) -> None:
    """Send during another call."""
    await left.turn.wait()
    await speak(session, word)


@server.tool
async def leave(word: str, ctx: Context) -> str:
    """Return immediately, and send messages later."""
    left.jobs.append(asyncio.create_task(later(ctx.session, word)))
    return "left"


@server.tool
async def stay(word: str, ctx: Context, jobs: int = 1) -> list[str]:
    """Let `jobs` jobs send messages, log a message, and return the responses to the jobs."""
    while len(left.jobs) < jobs:  # noqa: ASYNC110 - a call that is cancelled leaves one soon
        await asyncio.sleep(0.01)
    left.turn.set()
    await asyncio.gather(*left.jobs)
    await ctx.session.send_log_message("warning", word)
    result, left.answers = left.answers, []
    left.jobs.clear()
    left.turn.clear()
    return result


@server.tool
async def release() -> str:
    """Let the jobs send messages after this call has ended."""
    asyncio.get_running_loop().call_later(0.2, left.turn.set)
    return "released"


@server.tool
async def ask(word: str, ctx: Context) -> list[str]:
    """Send an elicitation during the call."""
    await speak(ctx.session, word)
    result, left.answers = left.answers, []
    return result


@server.tool
async def linger(word: str, ctx: Context) -> str:
    """Wait for the cancellation, and start a job even then."""
    await ctx.session.send_log_message("warning", "waiting")
    try:
        await asyncio.sleep(600)
    finally:
        left.jobs.append(asyncio.create_task(later(ctx.session, word)))
    return "never"


if __name__ == "__main__":
    server.run(show_banner=False)
