"""The Python SDK 2.x: `Client` in its default mode, which finds the newest revision."""

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CallToolResult,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    PromptReference,
    TextContent,
    TextResourceContents,
)

from matrix.drivers.report import (
    COMPLETED,
    LONG_SECONDS,
    START_SECONDS,
    STATIC,
    STATIC_TEXT,
    WATCHED,
    Play,
    expect,
    given,
    perform,
    same,
    steps,
)

GIVEN = given()


async def _fill_in(context: Any, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG001
    same(params.message, GIVEN.question)
    return ElicitResult(action="accept", content={"response": GIVEN.nonce})


async def _sample(
    context: Any,  # noqa: ARG001
    params: CreateMessageRequestParams,
) -> CreateMessageResult:
    same(getattr(params.messages[0].content, "text", None), GIVEN.question)
    message = TextContent(type="text", text=GIVEN.nonce)
    return CreateMessageResult(role="assistant", content=message, model="fixture")


@asynccontextmanager
async def connected() -> AsyncIterator[Client]:
    """Open a client of the gateway."""
    async with httpx2.AsyncClient(headers=GIVEN.headers, timeout=30) as http:
        transport = streamable_http_client(GIVEN.endpoint, http_client=http)
        async with Client(
            transport, elicitation_callback=_fill_in, sampling_callback=_sample
        ) as client:
            same(client.protocol_version, GIVEN.family)
            yield client


def _text(result: CallToolResult) -> str:
    block = result.content[0]
    return block.text if isinstance(block, TextContent) else repr(block)


async def _call(tool: str, **arguments: Any) -> str:
    async with connected() as client:
        return _text(await client.call_tool(GIVEN.name(tool), arguments))


async def list_tools() -> str:
    async with connected() as client:
        names, cursor = [], None
        while True:
            page = await client.list_tools(cursor=cursor)
            names += [tool.name for tool in page.tools]
            if (cursor := page.next_cursor) is None:
                return GIVEN.check_names(names)


async def call() -> str:
    return same(await _call("test_echo", text=GIVEN.nonce), GIVEN.nonce, "echoed")


async def progress() -> str:
    received: list[tuple[float, float | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001
        received.append((progress, total))

    async with connected() as client:
        tool = GIVEN.name("test_tool_with_progress")
        await client.call_tool(tool, {}, progress_callback=hear)
    return steps(received)


async def elicitation() -> str:
    text = await _call("test_elicitation", message=GIVEN.question)
    return expect("answered", "action=accept" in text and GIVEN.nonce in text, text)


async def sampling() -> str:
    text = await _call("test_sampling", prompt=GIVEN.question)
    return same(text, f"LLM response: {GIVEN.nonce}", "answered")


async def _uri(client: Client, own: str) -> str:
    listed = await client.list_resources()
    return GIVEN.uri([resource.uri for resource in listed.resources], own)


async def read() -> str:
    async with connected() as client:
        uri = await _uri(client, STATIC)
        contents = (await client.read_resource(uri)).contents[0]
    return same(contents.text if isinstance(contents, TextResourceContents) else "", STATIC_TEXT)


async def subscribe() -> str:
    async with connected() as client:
        uri = await _uri(client, WATCHED)
        async with client.listen(resource_subscriptions=[uri]) as news:
            await client.call_tool(GIVEN.name("test_touch_watched_resource"), {})
            async for event in news:
                return same(getattr(event, "uri", None), uri, "updated")
    raise AssertionError("The subscription ended before any notification.")


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
    return same(got.completion.values, COMPLETED)


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
    "subscribe": subscribe,
    "prompt": prompt,
    "completion": completion,
    "task": "mcp 2.x has no tasks",
    "cancellation": cancellation,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(perform(GIVEN.actions, PLAYS))
