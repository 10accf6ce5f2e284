"""The Inspector's command line in the given family: one process for every request."""

import asyncio
import json
import os
from typing import Any

from matrix.drivers.report import (
    LONG_SECONDS,
    START_SECONDS,
    STATIC,
    STATIC_TEXT,
    Play,
    expect,
    given,
    perform,
    same,
)

GIVEN = given()
_ONE_SHOT = "the command line has no option for it"


def command(method: str, *options: str) -> list[str]:
    """Return the command line."""
    program = [os.environ["MATRIX_NODE"], os.environ["MATRIX_INSPECTOR"], "--cli"]
    target = ["--server-url", GIVEN.endpoint, "--transport", "http", "--protocol-family"]
    header = ["--header", f"Authorization: {GIVEN.headers['Authorization']}"]
    items = [GIVEN.flavour, "--stored-auth-only", "--format", "json", "--quiet"]
    return [*program, *target, *items, *header, "--method", method, *options]


async def started(method: str, *options: str) -> asyncio.subprocess.Process:
    """Start the Inspector."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *command(method, *options), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )


async def result_of(method: str, *options: str) -> Any:
    """Return the printed result."""
    process = await started(method, *options)
    try:
        out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    expect("", process.returncode == 0, f"exit {process.returncode}: {errors.decode()[-250:]}")
    body = json.loads(out)
    return body.get("result", body)


async def called(tool: str, **arguments: Any) -> str:
    """Return the text of a tool's result."""
    named = ["--tool-name", GIVEN.name(tool), "--tool-args-json", json.dumps(arguments)]
    return str((await result_of("tools/call", *named))["content"][0]["text"])


async def list_tools() -> str:
    same((await result_of("initialize"))["protocolVersion"], GIVEN.family)
    return GIVEN.check_names([tool["name"] for tool in (await result_of("tools/list"))["tools"]])


async def call() -> str:
    return same(await called("test_echo", text=GIVEN.nonce), GIVEN.nonce, "echoed")


async def _uri(own: str) -> str:
    listed = (await result_of("resources/list"))["resources"]
    return GIVEN.uri([resource["uri"] for resource in listed], own)


async def read() -> str:
    got = await result_of("resources/read", "--uri", await _uri(STATIC))
    return same(got["contents"][0]["text"], STATIC_TEXT)


async def prompt() -> str:
    named = ["--prompt-name", GIVEN.name("test_prompt_with_arguments")]
    filled = ["--prompt-args", f"arg1={GIVEN.nonce}", "arg2=x"]
    got = await result_of("prompts/get", *named, *filled)
    text = got["messages"][0]["content"]["text"]
    return expect("filled in", f"arg1='{GIVEN.nonce}'" in text, text)


async def cancellation() -> str:
    named = [
        "--tool-name",
        GIVEN.name("test_sleep"),
        "--tool-args-json",
        json.dumps({"seconds": LONG_SECONDS}),
    ]
    process = await started("tools/call", *named)
    await asyncio.sleep(4 * START_SECONDS)
    expect("", process.returncode is None, "it ended by itself")
    process.kill()
    await process.wait()
    return "given up"


PLAYS: dict[str, Play | str] = {
    "list": list_tools,
    "call": call,
    "progress": _ONE_SHOT,
    "elicitation": "the command line answers no questions",
    "sampling": "the command line answers no questions",
    "read": read,
    "subscribe": "mcp-inspector --cli takes methods of one request and one answer only",
    "prompt": prompt,
    "completion": _ONE_SHOT,
    "task": _ONE_SHOT,
    "cancellation": cancellation
    if GIVEN.flavour == "modern"
    else "it can only be killed, and a disconnect does not cancel a call of a session",
}

if __name__ == "__main__":
    asyncio.run(perform(GIVEN.actions, PLAYS))
