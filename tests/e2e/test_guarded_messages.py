"""Guards on messages outside of calls: the answers of clients to a server."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp.client.client import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client

from harness.gateway.launched_gateway import Launched
from harness.upstreams import elicitation_server
from harness.waits import until_async

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
TOKEN = "ghp_" + "aB3dE5gH7jK9" * 3  # in the form of a token of GitHub
KEYS = {name: f"tbk_{name}_e2e-secret-of-messages" for name in ("free", "blocked", "redacted")}
GUARDS: dict[str, Any] = {
    "block": {"kind": "secrets", "on": ["arguments"], "action": "block"},
    "redact": {"kind": "secrets", "on": ["arguments", "results"], "action": "redact"},
}
CHOSEN = {"free": [], "blocked": ["block"], "redacted": ["redact"]}


@pytest.fixture(scope="module", params=["separate", "fused"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launched]:
    """Run a gateway with a server that sends requests after its calls."""
    options = ["--separate"] if request.param == "separate" else []
    launched = Launched(tmp_path_factory.mktemp("messages"), *options)
    program = [sys.executable, str(Path(elicitation_server.__file__)), "stdio"]
    document = {
        "servers": {"asking": {"command": program, "idle": 0, "sessions": "client"}},
        "guards": GUARDS,
        "keys": {
            name: {"secret": KEYS[name], "tools": ["*"], "guards": names}
            for name, names in CHOSEN.items()
        },
    }
    with launched.running(document):
        launched.until_listed(launched.client(KEYS["free"]), "asking__later")
        yield launched


class Sdk:
    """A client of the SDK that answers each elicitation with a secret."""

    def __init__(self, client: SdkClient) -> None:
        self.client = client

    async def call(self, tool: str, word: str = "") -> str:
        """Call a tool, and return the text of its result."""
        result = await self.client.call_tool(f"asking__{tool}", {"word": word})
        return str(getattr(result.content[0], "text", result))

    async def heard(self) -> str:
        """Return what the server received for its request after a call."""

        async def received() -> bool:
            if "later" in await self.call("heard"):
                return True
            await self.call("later", "prompted")  # the client may have had no stream before
            return False

        await until_async(received, "an answer after the call")
        return await self.call("heard")


@asynccontextmanager
async def connected(launched: Launched, key: str) -> AsyncIterator[Sdk]:
    """Connect a client of the session-based family."""

    async def answer(_context: Any, _params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"word": f"it is {TOKEN}"})

    callbacks: dict[str, Any] = {"elicitation_callback": answer}
    headers = {"authorization": f"Bearer {KEYS[key]}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(launched.ready["endpoint"], http_client=http)
        async with SdkClient(transport, mode="legacy", **callbacks) as client:
            yield Sdk(client)


def events(launched: Launched, guard: str) -> list[dict[str, Any]]:
    """Return the events about messages that a guard checked."""
    found: list[dict[str, Any]] = launched.eventual_rows(
        "SELECT * FROM events WHERE event = 'guard.message' AND "
        f"position(toString(guards), '{guard}') > 0"
    )
    return found


async def test_an_answer_outside_of_calls_is_unchanged_without_guards(gateway: Launched) -> None:
    async with connected(gateway, "free") as one:
        assert f"later accept it is {TOKEN}" in await one.heard()


async def test_an_answer_outside_of_calls_that_a_guard_blocks_never_reaches_the_server(
    gateway: Launched,
) -> None:
    async with connected(gateway, "blocked") as one:
        heard = await one.heard()
        assert "error -32603 A guard of the gateway withheld the client's answer" in heard
        assert TOKEN not in heard
    found = await asyncio.to_thread(events, gateway, "block")
    assert found
    assert TOKEN not in str(found)


async def test_an_answer_outside_of_calls_is_redacted(gateway: Launched) -> None:
    async with connected(gateway, "redacted") as one:
        heard = await one.heard()
        assert "later accept it is [redacted:github-pat:" in heard
        assert TOKEN not in heard
