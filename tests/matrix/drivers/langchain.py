"""Driver of langchain-mcp-adapters: `MultiServerMCPClient`, with a session for every call."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN003, ANN201, ANN202
# Written against langchain-mcp-adapters and mcp 1.x, which are not in the project's environment.

import asyncio
import warnings

from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.client import MultiServerMCPClient
from mcp.types import CreateMessageResult, ElicitResult, PromptReference, TextContent

from matrix.drivers.report import (
    COMPLETED,
    LONG_SECONDS,
    START_SECONDS,
    STATIC,
    STATIC_TEXT,
    expect,
    given,
    perform,
    same,
    steps,
)

GIVEN = given()
GATEWAY = "gateway"
_RAW = "the adapters have none of their own; the session they hand out is that of mcp 1.x"


async def _fill_in(_mcp, params, _context):
    same(params.message, GIVEN.question)
    return ElicitResult(action="accept", content={"response": GIVEN.nonce})


async def _sample(_context, params):
    same(params.messages[0].content.text, GIVEN.question)
    message = TextContent(type="text", text=GIVEN.nonce)
    return CreateMessageResult(role="assistant", content=message, model="fixture")


def connected(on_progress=None):
    connection = {
        "transport": "streamable_http",
        "url": GIVEN.endpoint,
        "headers": GIVEN.headers,
        "session_kwargs": {"sampling_callback": _sample},
    }
    callbacks = Callbacks(on_elicitation=_fill_in, on_progress=on_progress)
    return MultiServerMCPClient({GATEWAY: connection}, callbacks=callbacks)


async def _call(own, client=None, **arguments):
    name = GIVEN.name(own)
    tools = {tool.name: tool for tool in await (client or connected()).get_tools()}
    answer = await tools[name].ainvoke(arguments)
    return answer if isinstance(answer, str) else answer[0]["text"]


async def list_tools():
    async with connected().session(GATEWAY, auto_initialize=False) as session:
        same((await session.initialize()).protocolVersion, GIVEN.family)
    return GIVEN.check_names([tool.name for tool in await connected().get_tools()])


async def call():
    return same(await _call("test_echo", text=GIVEN.nonce), GIVEN.nonce, "echoed")


async def progress():
    received = []

    async def hear(done, total, _message, _context):
        received.append((done, total))

    await _call("test_tool_with_progress", connected(hear))
    return steps(received)


async def elicitation():
    text = await _call("test_elicitation", message=GIVEN.question)
    return expect("answered", "action=accept" in text and GIVEN.nonce in text, text)


async def sampling():
    text = await _call("test_sampling", prompt=GIVEN.question)
    return same(text, f"LLM response: {GIVEN.nonce}", "answered")


async def read():
    client = connected()
    async with client.session(GATEWAY) as session:
        listed = [resource.uri for resource in (await session.list_resources()).resources]
    blobs = await client.get_resources(GATEWAY, uris=[GIVEN.uri(listed, STATIC)])
    return same(blobs[0].as_string(), STATIC_TEXT)


async def prompt():
    arguments = {"arg1": GIVEN.nonce, "arg2": "x"}
    name = GIVEN.name("test_prompt_with_arguments")
    messages = await connected().get_prompt(GATEWAY, name, arguments=arguments)
    text = messages[0].content
    return expect("filled in", f"arg1='{GIVEN.nonce}'" in text, text)


async def completion():
    reference = PromptReference(type="ref/prompt", name=GIVEN.name("test_prompt_with_arguments"))
    async with connected().session(GATEWAY) as session:
        got = await session.complete(reference, {"name": "arg1", "value": "par"})
    return same(got.completion.values, COMPLETED)


async def cancellation():
    calling = asyncio.create_task(_call("test_sleep", seconds=LONG_SECONDS))
    await asyncio.sleep(2 * START_SECONDS)
    calling.cancel()
    await asyncio.wait([calling], timeout=START_SECONDS)
    return expect("given up", calling.cancelled(), calling)


PLAYS = {
    "list": list_tools,
    "call": call,
    "progress": progress,
    "elicitation": elicitation,
    "sampling": sampling,
    "read": read,
    "subscribe": _RAW,
    "prompt": prompt,
    "completion": completion,
    "task": _RAW,
    "cancellation": cancellation,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(perform(GIVEN.actions, PLAYS))
