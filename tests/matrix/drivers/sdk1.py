"""The Python SDK 1.x: `ClientSession` over streamable HTTP, or over HTTP+SSE."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN003, ANN201, ANN202
# Written against mcp 1.x, which is not in the project's environment.

import asyncio
import warnings
from contextlib import asynccontextmanager

import httpx
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CallToolResult,
    CancelledNotification,
    CancelledNotificationParams,
    ClientNotification,
    CreateMessageResult,
    ElicitResult,
    PaginatedRequestParams,
    PromptReference,
    ResourceUpdatedNotification,
    ServerNotification,
    TextContent,
)

from matrix.drivers.report import (
    COMPLETED,
    LONG_SECONDS,
    START_SECONDS,
    STATIC,
    STATIC_TEXT,
    WATCHED,
    expect,
    given,
    perform,
    same,
    steps,
)

GIVEN = given()


async def _fill_in(_context, params):
    same(params.message, GIVEN.question)
    return ElicitResult(action="accept", content={"response": GIVEN.nonce})


async def _sample(_context, params):
    same(params.messages[0].content.text, GIVEN.question)
    message = TextContent(type="text", text=GIVEN.nonce)
    return CreateMessageResult(role="assistant", content=message, model="fixture")


@asynccontextmanager
async def _streams():
    if GIVEN.flavour == "sse":
        address = GIVEN.endpoint.removesuffix("/mcp") + "/sse"
        async with sse_client(address, headers=GIVEN.headers) as streams:
            yield streams
        return
    async with (
        httpx.AsyncClient(headers=GIVEN.headers, timeout=30) as http,
        streamable_http_client(GIVEN.endpoint, http_client=http) as streams,
    ):
        yield streams[:2]


@asynccontextmanager
async def connected(**options):
    async with (
        _streams() as streams,
        ClientSession(
            *streams, elicitation_callback=_fill_in, sampling_callback=_sample, **options
        ) as session,
    ):
        same((await session.initialize()).protocolVersion, GIVEN.family)
        yield session


async def _call(tool, **arguments):
    async with connected() as session:
        return (await session.call_tool(GIVEN.name(tool), arguments)).content[0].text


async def list_tools():
    async with connected() as session:
        names, cursor = [], None
        while True:
            page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            names += [tool.name for tool in page.tools]
            if (cursor := page.nextCursor) is None:
                return GIVEN.check_names(names)


async def call():
    return same(await _call("test_echo", text=GIVEN.nonce), GIVEN.nonce, "echoed")


async def progress():
    received = []

    async def hear(done, total, _message):
        received.append((done, total))

    async with connected() as session:
        tool = GIVEN.name("test_tool_with_progress")
        await session.call_tool(tool, {}, progress_callback=hear)
    return steps(received)


async def elicitation():
    text = await _call("test_elicitation", message=GIVEN.question)
    return expect("answered", "action=accept" in text and GIVEN.nonce in text, text)


async def sampling():
    text = await _call("test_sampling", prompt=GIVEN.question)
    return same(text, f"LLM response: {GIVEN.nonce}", "answered")


async def _uri(session, own):
    listed = await session.list_resources()
    uris = {str(resource.uri): resource.uri for resource in listed.resources}
    return uris[GIVEN.uri(uris, own)]


async def read():
    async with connected() as session:
        got = await session.read_resource(await _uri(session, STATIC))
    return same(got.contents[0].text, STATIC_TEXT)


async def subscribe():
    updated = asyncio.get_running_loop().create_future()

    async def hear(message):
        if isinstance(message, ServerNotification) and isinstance(
            message.root, ResourceUpdatedNotification
        ):
            updated.set_result(str(message.root.params.uri))

    async with connected(message_handler=hear) as session:
        uri = await _uri(session, WATCHED)
        await session.subscribe_resource(uri)
        await session.call_tool(GIVEN.name("test_touch_watched_resource"), {})
        return same(await updated, str(uri), "updated")


async def prompt():
    async with connected() as session:
        arguments = {"arg1": GIVEN.nonce, "arg2": "x"}
        got = await session.get_prompt(GIVEN.name("test_prompt_with_arguments"), arguments)
    text = got.messages[0].content.text
    return expect("filled in", f"arg1='{GIVEN.nonce}'" in text, text)


async def completion():
    async with connected() as session:
        reference = PromptReference(
            type="ref/prompt", name=GIVEN.name("test_prompt_with_arguments")
        )
        got = await session.complete(reference, {"name": "arg1", "value": "par"})
    return same(got.completion.values, COMPLETED)


async def task():
    async with connected() as session:
        tool, arguments = GIVEN.name("slow_compute"), {"seconds": 0.5, "label": GIVEN.nonce}
        made = await session.experimental.call_tool_as_task(tool, arguments)
        async for state in session.experimental.poll_task(made.task.taskId):
            status = state.status
        same(status, "completed")
        got = await session.experimental.get_task_result(made.task.taskId, CallToolResult)
    return same(got.content[0].text, f"{GIVEN.nonce} done in 0.5 s", "completed")


async def cancellation():
    async with connected() as session:
        request_id = session._request_id  # the id of the next request; the SDK does not expose it
        tool, arguments = GIVEN.name("test_sleep"), {"seconds": LONG_SECONDS}
        calling = asyncio.create_task(session.call_tool(tool, arguments))
        await asyncio.sleep(START_SECONDS)
        about = CancelledNotificationParams(requestId=request_id, reason="enough")
        message = CancelledNotification(method="notifications/cancelled", params=about)
        await session.send_notification(ClientNotification(message))
        done, _ = await asyncio.wait([calling], timeout=START_SECONDS)
        calling.cancel()
        if done and not calling.cancelled():
            calling.exception()
    return "given up"


PLAYS = {
    "list": list_tools,
    "call": call,
    "progress": progress,
    "elicitation": elicitation,
    "sampling": sampling,
    "read": read,
    "subscribe": subscribe,
    "prompt": prompt,
    "completion": completion,
    "task": task,
    "cancellation": cancellation,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(perform(GIVEN.actions, PLAYS))
