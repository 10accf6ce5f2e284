"""A server on stdio of the handshake revisions that speaks of a call after that call has ended.

`leave` returns at once and leaves a job behind; the next call of `stay` has it speak while that
call is under way. `linger` speaks after it was cancelled.
"""

import asyncio
from typing import Any

from fastmcp import Context, FastMCP
from mcp.server.lowlevel import server as low_level
from mcp.server.runner import serve_loop

FORM: Any = {"type": "object", "properties": {"ok": {"type": "boolean"}}}
server = FastMCP("late")
# As SDKs are that know the revisions with a handshake alone.
setattr(low_level, "serve_dual_era_loop", serve_loop)  # noqa: B010 - it is not exported


class Left:
    """What calls have left behind, and what became of it."""

    def __init__(self) -> None:
        self.jobs: list[asyncio.Task[None]] = []
        self.turn = asyncio.Event()
        self.answers: list[str] = []


left = Left()


async def speak(session: Any, word: str) -> None:
    """Log a word and ask with it, of no call's behalf that the protocol could name."""
    await session.send_log_message("warning", word)
    try:
        left.answers.append((await session.elicit_form(word, FORM)).action)
    except Exception as error:  # noqa: BLE001 - that it is refused is what callers look for
        left.answers.append(f"refused: {error}")


async def later(session: Any, word: str) -> None:
    """Speak in the middle of another call."""
    await left.turn.wait()
    await speak(session, word)


@server.tool
async def leave(word: str, ctx: Context) -> str:
    """Return at once, and speak later."""
    left.jobs.append(asyncio.create_task(later(ctx.session, word)))
    return "left"


@server.tool
async def stay(word: str, ctx: Context, jobs: int = 1) -> list[str]:
    """Have so many others speak, speak too, and tell how their requests were answered."""
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
    """Have the others speak when this call has ended."""
    asyncio.get_running_loop().call_later(0.2, left.turn.set)
    return "released"


@server.tool
async def ask(word: str, ctx: Context) -> list[str]:
    """Speak within the call."""
    await speak(ctx.session, word)
    result, left.answers = left.answers, []
    return result


@server.tool
async def linger(word: str, ctx: Context) -> str:
    """Wait to be cancelled, and leave a job behind even then."""
    await ctx.session.send_log_message("warning", "waiting")
    try:
        await asyncio.sleep(600)
    finally:
        left.jobs.append(asyncio.create_task(later(ctx.session, word)))
    return "never"


if __name__ == "__main__":
    server.run(show_banner=False)
