"""Client under test: an agent that reaches the suite's mock server through the gateway.

The suite runs `python agent_through_gateway.py URL`. The program declares the URL as an upstream
with `toolbus apply`, then makes the scenario's calls at the gateway, so that the mock server checks
the gateway's own client side.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx2
import yaml
from mcp import MCPError
from mcp.client.client import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult

from conformance.gateway import KEY, configuration
from conformance.suite import FAILED
from harness.clients.bus_operator import BusOperator
from harness.clients.mcp_client import Client
from harness.engines.engine import installed
from harness.waits import until_blocking
from toolbus_common.service.names import SERVICES

SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
MODERN = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "") >= "2026"
CONTEXT = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
DIRECTORY = Path(os.environ.get("TOOLBUS_CONFORMANCE_DIRECTORY", "."))
ENDPOINT = os.environ.get("TOOLBUS_CONFORMANCE_ENDPOINT", "")
LISTED_SECONDS = 15.0
SERVER = SCENARIO.replace("/", "-")[:24].rstrip("-") + ("-m" if MODERN else "-l")

Play = Callable[[], Awaitable[None]]


class Running(BusOperator):
    """The gateway of this leg."""

    services = len(SERVICES)

    def __init__(self) -> None:
        self.state_dir = DIRECTORY / "state"
        self.nats_url = json.loads((DIRECTORY / "ready.json").read_text())["nats_url"]


def register(url: str) -> None:
    """Declare the mock server as the only upstream, or none without a URL.

    A mock server does not end while a client holds one of its streams, as the gateway does.
    """
    document = configuration("")
    document["servers"] = {SERVER: {"url": url}} if url else {}
    file = DIRECTORY / "mock.yaml"
    file.write_text(yaml.safe_dump(document))
    words = ["apply", "-f", str(file), "--state-dir", str(DIRECTORY / "state")]
    done = subprocess.run(
        [installed("toolbus"), *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"toolbus apply: {done.stdout}{done.stderr}")


def bare() -> Client:
    """Return a client of the mock server's own endpoint at the gateway."""
    return Client(f"{ENDPOINT}/{SERVER}", KEY)


def listed() -> list[dict[str, Any]]:
    """Return the mock server's tools at the gateway; empty if none appear in time."""

    def tools() -> list[dict[str, Any]]:
        answer = bare().request("tools/list")
        return answer.json["result"]["tools"] if answer.status == 200 else []

    try:
        found: list[dict[str, Any]] = until_blocking(tools, "the mock's tools", LISTED_SECONDS)
    except AssertionError:
        return []
    return found


async def accept(context: Any, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG001
    """Accept every elicitation with the defaults of its form."""
    if not isinstance(params, ElicitRequestFormParams):
        return ElicitResult(action="accept")
    fields = params.requested_schema.get("properties", {})
    filled = {name: _value(field) for name, field in fields.items()}
    return ElicitResult(action="accept", content=filled)


def _value(field: dict[str, Any]) -> Any:
    if "default" in field:
        return field["default"]
    return {"boolean": True, "integer": 1, "number": 1}.get(field.get("type", ""), "accepted")


@asynccontextmanager
async def agent() -> AsyncIterator[SdkClient]:
    """Open the SDK's client at the gateway, in the family of the scenario."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(bare().endpoint, http_client=http)
        mode = "auto" if MODERN else "legacy"
        async with SdkClient(transport, mode=mode, elicitation_callback=accept) as client:
            yield client


async def call(*calls: tuple[str, dict[str, Any]]) -> None:
    """Call tools one after the other; a failed call does not end the others."""
    async with agent() as client:
        await client.list_tools()
        for name, arguments in calls:
            try:
                print(name, await client.call_tool(name, arguments))
            except MCPError as error:
                print(name, "refused:", error)


async def only_list() -> None:
    """Do nothing more than the listing that the declaration caused."""


async def add() -> None:
    """Call the tool that adds two numbers."""
    await call(("add_numbers", {"a": 5, "b": 3}))


async def fill_in() -> None:
    """Answer a form with its defaults."""
    await call(("test_client_elicitation_defaults", {}))


async def come_back() -> None:
    """Call a tool whose connection breaks during the answer."""
    await call(("test_reconnection", {}))


async def replay() -> None:
    """Make the calls in the scenario's context."""
    await call(*[(given["name"], given["arguments"]) for given in CONTEXT["toolCalls"]])


async def rounds() -> None:
    """Call every multi-round tool, and an unrelated one among them."""
    names = ("echo_state", "unrelated", "no_state", "no_result_type")
    await call(*[(f"test_mrtr_{name}", {}) for name in names])


async def call_all_listed() -> None:
    """Call every listed tool, as a client without checks does."""
    for tool in listed():
        print(tool["name"], bare().call(tool["name"], {"region": "us-west1"}).body)


async def use_everything() -> None:
    """List and use tools, resources and prompts."""
    async with agent() as client:
        for tool in (await client.list_tools()).tools:
            await client.call_tool(tool.name, {})
        for resource in (await client.list_resources()).resources:
            await client.read_resource(str(resource.uri))
        for prompt in (await client.list_prompts()).prompts:
            await client.get_prompt(prompt.name)


async def echo_schema() -> None:
    """Send back a tool's schema as the gateway lists it."""
    shown = {tool["name"]: tool for tool in listed()}
    schema = shown["json_schema_2020_12_tool"]["inputSchema"]
    print(bare().call("json_schema_echo", {"schema": schema}).body)


PLAYS: dict[str, Play] = {
    "initialize": only_list,
    "request-metadata": only_list,
    "json-schema-ref-no-deref": only_list,
    "tools_call": add,
    "elicitation-sep1034-client-defaults": fill_in,
    "sse-retry": come_back,
    "http-standard-headers": use_everything,
    "http-custom-headers": replay,
    "http-invalid-tool-headers": call_all_listed,
    "sep-2322-client-request-state": rounds,
    "json-schema-2020-12-preservation": echo_schema,
}
_WITHOUT_TOOLS = frozenset({"initialize"})


def main() -> None:
    """Play the scenario that the environment names."""
    register(sys.argv[-1])
    if SCENARIO not in _WITHOUT_TOOLS:
        print("listed:", [tool["name"] for tool in listed()])
        until_blocking(Running().up_to_date, "every service knows them")
    else:
        until_blocking(
            lambda: bare().request("tools/list").status == 200, "the endpoint", LISTED_SECONDS
        )
    try:
        asyncio.run(_play(PLAYS[SCENARIO]))
    except Exception as error:
        raise SystemExit(f"{FAILED}{_innermost(error)!r}") from error
    finally:
        register("")


async def _play(play: Play) -> None:
    await play()


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
