"""FastMCP 4 with fastmcp-tasks, through `Client`."""

import asyncio
import warnings
from importlib import import_module
from typing import Any

import anyio
from fastmcp import Client
from fastmcp.client.elicitation import ElicitResult
from fastmcp.client.transports import StreamableHttpTransport
from mcp_types import PromptReference

from matrix.drivers.report import (
    COMPLETED,
    LONG_SECONDS,
    START_SECONDS,
    STATIC,
    STATIC_TEXT,
    Play,
    expect,
    given,
    perform,
    same,
    steps,
)

GIVEN = given()


async def _fill_in(message: str, _form: Any, _params: Any, _context: Any) -> ElicitResult[Any]:
    same(message, GIVEN.question)
    return ElicitResult(action="accept", content={"response": GIVEN.nonce})


async def _sample(messages: list[Any], _params: Any, _context: Any) -> str:
    same(messages[0].content.text, GIVEN.question)
    return GIVEN.nonce


def connected() -> Client[StreamableHttpTransport]:
    """Open a client of the gateway."""
    transport = StreamableHttpTransport(GIVEN.endpoint, headers=GIVEN.headers)
    return Client(transport, elicitation_handler=_fill_in, sampling_handler=_sample)


async def _call(tool: str, **arguments: Any) -> str:
    async with connected() as client:
        result = await client.call_tool(GIVEN.name(tool), arguments)
    return str(getattr(result.content[0], "text", result))


async def list_tools() -> str:
    async with connected() as client:
        same(client.protocol_version, GIVEN.family)
        return GIVEN.check_names([tool.name for tool in await client.list_tools()])


async def call() -> str:
    return same(await _call("test_echo", text=GIVEN.nonce), GIVEN.nonce, "echoed")


async def progress() -> str:
    received: list[tuple[float, float | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001
        received.append((progress, total))

    async with connected() as client:
        tool = GIVEN.name("test_tool_with_progress")
        await client.call_tool(tool, {}, progress_handler=hear)
    return steps(received)


async def elicitation() -> str:
    text = await _call("test_elicitation", message=GIVEN.question)
    return expect("answered", "action=accept" in text and GIVEN.nonce in text, text)


async def sampling() -> str:
    text = await _call("test_sampling", prompt=GIVEN.question)
    return same(text, f"LLM response: {GIVEN.nonce}", "answered")


async def read() -> str:
    async with connected() as client:
        listed = [resource.uri for resource in await client.list_resources()]
        contents = await client.read_resource(GIVEN.uri(listed, STATIC))
    return same(getattr(contents[0], "text", ""), STATIC_TEXT)


async def prompt() -> str:
    async with connected() as client:
        arguments = {"arg1": GIVEN.nonce, "arg2": "x"}
        got = await client.get_prompt(GIVEN.name("test_prompt_with_arguments"), arguments)
    text = getattr(got.messages[0].content, "text", "")
    return expect("filled in", f"arg1='{GIVEN.nonce}'" in text, text)


async def completion() -> str:
    async with connected() as client:
        reference = PromptReference(
            type="ref/prompt", name=GIVEN.name("test_prompt_with_arguments")
        )
        got = await client.complete(reference, {"name": "arg1", "value": "par"})
    return same(got.values, COMPLETED)


async def task() -> str:
    # A separate package, installed only in the driver's environment.
    call_tool_task = import_module("fastmcp_tasks.client").call_tool_task
    async with connected() as client:
        work = {"seconds": 0.5, "label": GIVEN.nonce}
        started = await call_tool_task(client, GIVEN.name("slow_compute"), work)
        text = (await started.result()).content[0].text
    return same(text, f"{GIVEN.nonce} done in 0.5 s", "completed")


async def cancellation() -> str:
    async with connected() as client:
        with anyio.move_on_after(START_SECONDS) as scope:
            await client.call_tool(GIVEN.name("test_sleep"), {"seconds": LONG_SECONDS})
        return expect("given up", scope.cancelled_caught, "it ended by itself")


PLAYS: dict[str, Play | str] = {
    "list": list_tools,
    "call": call,
    "progress": progress,
    "elicitation": elicitation,
    "sampling": sampling,
    "read": read,
    "subscribe": "FastMCP's Client has neither subscribe nor listen",
    "prompt": prompt,
    "completion": completion,
    "task": task,
    "cancellation": cancellation,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(perform(GIVEN.actions, PLAYS))
