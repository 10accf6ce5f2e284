"""Guards at the surface: own secrets in every place, notices, limits, approvals and coverage."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import mcp_types as types
import pytest
from mcp.client.client import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from harness.audit.written_files import files_in
from harness.clients.admin_client import at, why
from harness.gateway.launched_gateway import Launched
from harness.receivers.otlp_collector import Collector
from harness.samples.canaries import canaries_in, canary
from harness.upstreams import revealing_server
from harness.upstreams.leaking_server import LeakingServer
from harness.waits import until_blocking
from toolbus_executor.guards.guarded_call import NOTICE

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
KINDS = len(revealing_server.REVEALING) + 2  # with a prompt and a resource
TOKEN = "ghp_" + "aB3dE5gH7jK9" * 3  # in the form of a token of GitHub
NAMES = ("kept", "asked", "limited", "held", "free", "approver")
KEYS = {name: f"tbk_{name}_e2e-secret-of-the-surface" for name in NAMES}
ADMIN = "tba_auditor_e2e-secret-of-the-surface"
GUARDS: dict[str, Any] = {
    "own": {"kind": "secrets", "on": ["arguments", "results"], "action": "redact"},
    "ask": {"kind": "secrets", "on": ["arguments"], "action": "ask"},
    "notice": {"kind": "injection", "on": ["results"], "action": "flag"},
    "hold": {"kind": "injection", "on": ["results"], "action": "block"},
    "limits": {
        "kind": "limits",
        "on": ["results"],
        "action": "block",
        "options": {"max_depth": 20, "max_links": 10, "max_bytes": 5000, "output_schema": True},
    },
}
CHOSEN = {
    "kept": ["own"], "asked": ["ask"], "limited": ["notice", "limits"], "held": ["hold"],
    "free": [], "approver": [],
}  # fmt: skip


def posted(url: str, **form: str) -> str:
    """Send a form, and return the page."""
    answer = httpx2.post(url, data=form, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.text


RECORDED = {"call.denied", "approval.requested", "approval.granted", "approval.used"}


class Surface:
    """The gateway, its canaries, and everything that clients received."""

    def __init__(self, launched: Launched, collector: Collector, canaries: dict[str, str]) -> None:
        self.launched = launched
        self.collector = collector
        self.canaries = canaries
        self.received: list[bytes] = []

    def heard(self, *values: object) -> None:
        """Keep what a client received."""
        self.received += [str(each).encode() for each in values]


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surface]:
    """Run a gateway whose servers reveal the secrets that it holds for them."""
    canaries = {name: canary(name) for name in ("variable", "header")}
    launched = Launched(tmp_path_factory.mktemp("surface"))
    program = [sys.executable, str(Path(revealing_server.__file__))]
    blabbing = LeakingServer("page", "words", "last")
    with Collector() as collector, blabbing.serving():
        launched.environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "CANARY": canaries["variable"],
        }
        document = {
            "servers": {
                "shy": {"command": program, "idle": 0, "env": {"KEPT": "${env:CANARY}"}},
                "blab": {"url": blabbing.url, "headers": {"X-Canary": canaries["header"]}},
            },
            "guards": GUARDS,
            "keys": {
                name: {
                    "secret": KEYS[name], "tools": ["*"], "guards": names,
                    "content": "full", "result_content": "full",
                    "rights": ["approve"] if name == "approver" else [],
                }
                for name, names in CHOSEN.items()
            },
            "admins": {"auditor": {"role": "auditor", "secret": ADMIN}},
        }  # fmt: skip
        with launched.running(document):
            launched.until_listed(launched.client(KEYS["free"]), "shy__result", "blab__die")
            yield Surface(launched, collector, canaries)


@asynccontextmanager
async def connected(surface: Surface, key: str, mode: str) -> Any:
    """Connect a client of the SDK that keeps everything it receives."""

    async def answer(_context: Any, params: Any) -> types.ElicitResult:
        surface.heard(params)
        return types.ElicitResult(action="accept", content={"word": "no"})

    async def logged(params: Any) -> None:
        surface.heard(params)

    headers = {"authorization": f"Bearer {KEYS[key]}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(surface.launched.ready["endpoint"], http_client=http)
        callbacks: dict[str, Any] = {"elicitation_callback": answer, "logging_callback": logged}
        async with SdkClient(transport, mode=mode, **callbacks) as client:
            yield client


async def taken(surface: Surface, mode: str) -> None:
    """Call everything that reveals a secret."""

    async def progressed(*values: Any) -> None:
        surface.heard(*values)

    async with connected(surface, "kept", mode) as client:
        for tool in revealing_server.REVEALING:
            try:
                surface.heard(
                    await client.call_tool(f"shy__{tool}", {}, progress_callback=progressed)
                )
            except MCPError as error:
                surface.heard(error.error)
        surface.heard(await client.get_prompt("shy__hello"))
        surface.heard(await client.read_resource("note:///one"))


async def test_a_secret_that_toolbus_holds_reaches_nothing_from_any_place(
    surface: Surface,
) -> None:
    for mode in ("legacy", "auto"):
        await taken(surface, mode)
    client = surface.launched.client(KEYS["kept"])
    for tool in ("die", "say"):
        surface.heard(await asyncio.to_thread(client.call, f"blab__{tool}", {}))
    assert not canaries_in(surface.canaries, surface.received)
    await asyncio.to_thread(no_output_has_a_canary, surface)


def no_output_has_a_canary(surface: Surface) -> None:
    """Check the events, logs, spans, files and the status."""
    launched = surface.launched
    launched.eventual_rows(
        "SELECT 1 FROM events WHERE event = 'call.failed' AND server = 'blab' AND key = 'kept'"
    )
    outputs = {
        "events": [repr(launched.rows("SELECT * FROM events")).encode()],
        "logs": [launched.logs().encode()],
        "spans": surface.collector.bodies,
        "disk": [content for _, content in files_in(launched.state_dir)],
        "status": [launched.toolbus("status", "--json").stdout.encode()],
    }
    assert all(any(b"blab" in each for each in found) for found in outputs.values())
    leaks = {name: canaries_in(surface.canaries, found) for name, found in outputs.items()}
    assert {name: found for name, found in leaks.items() if found} == {}


def test_the_servers_do_reveal_the_secrets_without_a_guard(surface: Surface) -> None:
    free = surface.launched.client(KEYS["free"])
    assert surface.canaries["variable"] in free.call("shy__result").text


def test_an_injected_result_is_shown_as_data_with_a_notice_or_held(surface: Surface) -> None:
    noticed = surface.launched.client(KEYS["limited"]).call("shy__injected")
    texts = [each["text"] for each in noticed.json["result"]["content"]]
    assert texts == [NOTICE, revealing_server.INJECTION]
    held = surface.launched.client(KEYS["held"]).call("shy__injected")
    assert (held.code, held.error["data"]["guard"]) == ("guard_blocked", "hold")
    assert b"previous instructions" not in held.body


@pytest.mark.parametrize(
    ("tool", "limit"),
    [
        ("schema", "output_schema"), ("deep", "max_depth"), ("links", "max_links"),
        ("echo", "max_bytes"),
    ],
)  # fmt: skip
def test_a_result_beyond_a_limit_never_reaches_the_caller(
    surface: Surface, tool: str, limit: str
) -> None:
    word = "beyond " * 1000
    found = surface.launched.client(KEYS["limited"]).call(f"shy__{tool}", {"word": word})
    assert (found.code, found.error["data"]["findings"]) == ("guard_blocked", [limit])
    assert surface.launched.client(KEYS["free"]).call(f"shy__{tool}", {"word": word}).text


def test_an_approver_sees_the_guard_and_not_what_it_found(surface: Surface) -> None:
    launched, client = surface.launched, surface.launched.client(KEYS["asked"])
    arguments = {"word": f"use {TOKEN} now"}
    asked = client.call("shy__echo", arguments)
    assert asked.code == "approval_required"
    assert TOKEN.encode() not in asked.body
    approval = asked.error["data"]["approval"]
    page = launched.client(KEYS["free"]).endpoint.removesuffix("/mcp") + f"/approvals/{approval}"
    shown = {
        "api": at(launched, ADMIN).request("GET", f"/v1/approvals/{approval}").body.decode(),
        "page": posted(page, key=KEYS["approver"]),
        "command": launched.toolbus("approvals", "--json").stdout,
    }
    for place, text in shown.items():
        assert "[hidden:github-pat 1]" in text, (place, text)
        assert "guard:ask" in text or "guard 'ask'" in text or "guard &#x27;ask&#x27;" in text
        assert TOKEN not in text, place
    assert launched.toolbus("approve", approval).returncode == 0
    assert client.call("shy__echo", arguments).text == arguments["word"]
    # `content: full` records arguments and result of the executed call, and nothing before it.
    found = launched.eventual_rows(
        "SELECT * FROM events WHERE key = 'asked' "
        "AND event NOT IN ('call.allowed', 'call.completed')",
        lambda rows: {each["event"] for each in rows} >= RECORDED,
    )
    assert TOKEN not in str(found)
    assert TOKEN not in launched.logs()


def shares(found: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[float, int]]:
    """Return the share of each tool and phase, and its calls."""
    return {(each["tool"], each["phase"]): (each["percent"], each["calls"]) for each in found}


def coverage(surface: Surface, **wanted: object) -> dict[str, Any]:
    """Return the coverage over HTTP."""
    path = f"/v1/guards/coverage?{urlencode(wanted)}"
    answer = at(surface.launched, ADMIN).request("GET", path)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


async def test_every_kind_of_call_of_every_revision_is_covered_without_a_gap(
    surface: Surface,
) -> None:
    for mode in ("legacy", "auto"):
        await taken(surface, mode)
    until_blocking(lambda: len(coverage(surface, key="kept")["items"]) >= 2 * KINDS, "all calls")
    found = coverage(surface, key="kept", since="1h")
    assert found["complete"]
    assert [each for each in found["items"] if each["missing"] or each["failed"]] == []
    assert {each["guard"] for each in found["items"]} == {"own"}
    assert {each["tool"] for each in found["items"]} >= {
        "shy__result", "shy__request", "prompts/get shy__hello", "resources/read shy",
    }  # fmt: skip
    shown = surface.launched.toolbus("guards", "coverage", "--key", "kept", "--json")
    assert shown.returncode == 0, shown.stdout
    command = {
        (each["tool"], each["phase"]): each["percent"]
        for each in json.loads(shown.stdout)["shares"]
    }
    assert command == {(each["tool"], each["phase"]): each["percent"] for each in found["items"]}


def test_the_coverage_is_read_in_pages(surface: Surface) -> None:
    for tool in ("echo", "result", "links"):
        surface.launched.client(KEYS["held"]).call(f"shy__{tool}", {"word": "page"})
    surface.launched.client(KEYS["free"]).call("shy__echo")
    until_blocking(lambda: len(coverage(surface, key="held")["items"]) >= 3, "three tools")
    whole = coverage(surface, key="held")
    pages, after = [], ""
    while after is not None:
        page = coverage(surface, key="held", limit=1, after=after)
        pages += [each["tool"] for each in page["items"]]
        after = page["next"]
    assert pages == [each["tool"] for each in whole["items"]]
    assert coverage(surface, key="held", tool="shy__echo")["items"][0]["guard"] == "hold"
    assert {each["key"] for each in coverage(surface, key="free")["without_guards"]} == {"free"}
    assert coverage(surface, gaps="true")["items"] == []


@pytest.mark.parametrize(
    "query",
    [
        "since=", "since=1", "since=99999d", "since=-1d", "since=1d;drop", "limit=0", "limit=1001",
        "key=" + "k" * 257, "tool=" + "t" * 401, "after=" + "a" * 2049, "gaps=maybe", "other=1",
        "since=1h&since=2h", "since=%00",
    ],
)  # fmt: skip
def test_hostile_parameters_of_the_coverage_are_refused_with_a_reason(
    surface: Surface, query: str
) -> None:
    answer = at(surface.launched, ADMIN).request("GET", f"/v1/guards/coverage?{query}")
    assert (answer.status, why(answer)) == (400, "invalid"), answer.body
    assert "drop" not in answer.body.decode()


@pytest.mark.parametrize(
    "query", ["key=%27%3B--", "tool=%2A%2A%7B", "after=%F0%9F%92%A9", "tool=%00"]
)
def test_odd_texts_select_nothing(surface: Surface, query: str) -> None:
    answer = at(surface.launched, ADMIN).request("GET", f"/v1/guards/coverage?{query}")
    assert answer.status == 200, answer.body
