"""Driver of openai-agents: `MCPServerStreamableHttp` without a model."""

# mypy: ignore-errors
# ruff: noqa: ANN201
# Written against openai-agents, which is not in the project's environment.

import asyncio
import os
import warnings

os.environ.setdefault("OPENAI_AGENTS_DISABLE_TRACING", "1")

from agents.mcp import MCPServerStreamableHttp

from matrix.drivers.report import (
    LONG_SECONDS,
    START_SECONDS,
    STATIC,
    STATIC_TEXT,
    expect,
    given,
    perform,
    same,
)

GIVEN = given()


def connected():
    params = {"url": GIVEN.endpoint, "headers": GIVEN.headers, "timeout": 30}
    return MCPServerStreamableHttp(params=params, client_session_timeout_seconds=30)


async def list_tools():
    async with connected() as server:
        same(server.session.protocol_version, GIVEN.family)
        return GIVEN.check_names([tool.name for tool in await server.list_tools()])


async def call():
    async with connected() as server:
        result = await server.call_tool(GIVEN.name("test_echo"), {"text": GIVEN.nonce})
    return same(result.content[0].text, GIVEN.nonce, "echoed")


async def read():
    async with connected() as server:
        listed = [resource.uri for resource in (await server.list_resources()).resources]
        got = await server.read_resource(GIVEN.uri(listed, STATIC))
    return same(got.contents[0].text, STATIC_TEXT)


async def prompt():
    async with connected() as server:
        arguments = {"arg1": GIVEN.nonce, "arg2": "x"}
        got = await server.get_prompt(GIVEN.name("test_prompt_with_arguments"), arguments)
    text = got.messages[0].content.text
    return expect("filled in", f"arg1='{GIVEN.nonce}'" in text, text)


async def cancellation():
    async with connected() as server:
        sleeping = server.call_tool(GIVEN.name("test_sleep"), {"seconds": LONG_SECONDS})
        calling = asyncio.create_task(sleeping)
        await asyncio.sleep(START_SECONDS)
        calling.cancel()
        await asyncio.wait([calling], timeout=START_SECONDS)
        return expect("given up", calling.cancelled(), calling)


PLAYS = {
    "list": list_tools,
    "call": call,
    "progress": "call_tool takes no progress callback",
    "elicitation": "its MCP servers take no elicitation callback and declare no elicitation",
    "sampling": "its MCP servers take no sampling callback and declare no sampling",
    "read": read,
    "subscribe": "its MCP servers list and read resources only",
    "prompt": prompt,
    "completion": "its MCP servers have no completion",
    "task": "its MCP servers have no tasks",
    "cancellation": cancellation,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(perform(GIVEN.actions, PLAYS))
