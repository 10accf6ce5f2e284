"""Guards in front of real servers, as clients and operators experience them."""

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastmcp import Client as FastClient
from mcp.client.client import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client

from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.packages import npm

FILES = "@modelcontextprotocol/server-filesystem@2026.8.31"
TOKEN = "ghp_" + "aB3dE5gH7jK9" * 3  # in the form of a token of GitHub
CARD = "4111 1111 1111 1111"
KEYS = {
    name: f"tbk_{name}_e2e-secret-of-guards"
    for name in ("redacted", "blocked", "asked", "flagged", "watched", "restored", "free")
}


def guard(kind: str, phase: str, action: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "on": [phase], "action": action, **more}


@pytest.fixture(scope="module", params=["separate", "fused"])
def gateway(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Iterator[tuple[Launched, Upstream, Path]]:
    """Run a gateway with a filesystem server; each key has another guard."""
    assert pytestconfig.cache is not None
    files = tmp_path_factory.mktemp("files")
    (files / "settings.txt").write_text(f"user = ada\ntoken = {TOKEN}\n")
    (files / "customer.txt").write_text(f"card: {CARD}\n")
    (files / "plain.txt").write_text("nothing of interest\n")
    program = npm.installed(FILES, "dist/index.js", pytestconfig.cache.mkdir("node"))
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    options = ["--separate"] if request.param == "separate" else []
    launched = Launched(tmp_path_factory.mktemp("guards"), *options)
    guards = {
        "redact": guard("secrets", "results", "redact"),
        "block": guard("secrets", "arguments", "block"),
        "ask": guard("secrets", "arguments", "ask"),
        "flag": guard("secrets", "arguments", "flag"),
        "watch": guard("secrets", "arguments", "block", mode="observe"),
        "cards": guard("pii", "results", "redact", restore=["echo__say"]),
    }
    chosen = {
        "redacted": ["redact"], "blocked": ["block"], "asked": ["ask"], "flagged": ["flag"],
        "watched": ["watch"], "restored": ["cards"], "free": [],
    }  # fmt: skip
    document = {
        "servers": {
            "files": {
                "command": [str(npm.NODE), str(program), str(files)],
                "cwd": str(files),
                "idle": 0,
            },
            "echo": {"url": echo.url},
        },
        "guards": guards,
        "keys": {
            name: {"secret": KEYS[name], "tools": ["*"], "guards": names, "content": "full"}
            for name, names in chosen.items()
        },
    }
    with echo.running(), launched.running(document):
        launched.until_listed(launched.client(KEYS["free"]), "files__read_text_file", "echo__say")
        yield launched, echo, files


@asynccontextmanager
async def sdk(launched: Launched, key: str) -> Any:
    headers = {"Authorization": f"Bearer {KEYS[key]}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(launched.ready["endpoint"], http_client=http)
        async with SdkClient(transport) as client:
            yield client


def rows(launched: Launched, call: str, event: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = launched.eventual_rows(
        f"SELECT * FROM events WHERE call_id = '{call}' AND event = '{event}'"
    )
    return found


def checked(launched: Launched, event: str, guard_name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = launched.eventual_rows(
        f"SELECT * FROM events WHERE event = '{event}' AND position(toString(guards), "
        f"'{guard_name}') > 0"
    )
    return found


async def test_a_secret_in_a_file_is_redacted_for_every_client_and_in_the_rows(
    gateway: tuple[Launched, Upstream, Path],
) -> None:
    launched, _, files = gateway
    path = {"path": str(files / "settings.txt")}
    async with sdk(launched, "redacted") as client:
        text = str((await client.call_tool("files__read_text_file", path)).content[0].text)
    assert TOKEN not in text
    assert "[redacted:" in text
    assert "user = ada" in text
    async with FastClient(launched.ready["endpoint"], auth=KEYS["redacted"]) as fast:
        content = (await fast.call_tool("files__read_text_file", path)).content
        assert TOKEN not in str(content)
    found = await asyncio.to_thread(checked, launched, "call.completed", "redact")
    assert found
    assert TOKEN not in str(found)
    free = launched.client(KEYS["free"]).call("files__read_text_file", path)
    assert TOKEN in free.text


def test_personal_data_is_redacted_and_restored_for_the_declared_tool(
    gateway: tuple[Launched, Upstream, Path],
) -> None:
    launched, echo, files = gateway
    client = launched.client(KEYS["restored"])
    text = client.call("files__read_text_file", {"path": str(files / "customer.txt")}).text
    assert CARD not in text
    placeholder = text[text.index("[redacted:") : text.index("]") + 1]
    client.call("echo__say", {"text": f"pay with {placeholder}"})
    assert any(CARD in str(each) for each in echo.arrived())
    other = launched.client(KEYS["free"]).call("echo__say", {"text": placeholder})
    assert other.text == placeholder


def test_a_blocked_call_names_the_guard_and_never_the_secret(
    gateway: tuple[Launched, Upstream, Path],
) -> None:
    launched, echo, _ = gateway
    before = len(echo.arrived())
    answer = launched.client(KEYS["blocked"]).call("echo__say", {"text": f"use {TOKEN}"})
    assert answer.code == "guard_blocked"
    assert answer.error["data"]["guard"] == "block"
    assert TOKEN.encode() not in answer.body
    assert len(echo.arrived()) == before
    (row,) = rows(launched, answer.error["data"]["callId"], "call.denied")
    assert TOKEN not in str(row)
    assert launched.client(KEYS["blocked"]).call("echo__say", {"text": "fine"}).text == "fine"


def test_an_asked_call_waits_for_an_approval(gateway: tuple[Launched, Upstream, Path]) -> None:
    launched, _, _ = gateway
    client = launched.client(KEYS["asked"])
    answer = client.call("echo__say", {"text": f"ask about {TOKEN}"})
    assert answer.code == "approval_required"
    decided = launched.toolbus("approve", answer.error["data"]["approval"])
    assert decided.returncode == 0, decided.stderr
    assert client.call("echo__say", {"text": f"ask about {TOKEN}"}).text == f"ask about {TOKEN}"


@pytest.mark.parametrize(("key", "name"), [("flagged", "flag"), ("watched", "watch")])
def test_a_flagged_or_observed_call_is_only_recorded(
    gateway: tuple[Launched, Upstream, Path], key: str, name: str
) -> None:
    launched, _, _ = gateway
    text = f"{name} {TOKEN}"
    assert launched.client(KEYS[key]).call("echo__say", {"text": text}).text == text
    assert checked(launched, "call.allowed", name)


def test_no_log_contains_what_a_guard_found(gateway: tuple[Launched, Upstream, Path]) -> None:
    launched, _, files = gateway
    path = {"path": str(files / "settings.txt")}
    launched.client(KEYS["redacted"]).call("files__read_text_file", path)
    launched.client(KEYS["blocked"]).call("echo__say", {"text": TOKEN})
    assert TOKEN not in launched.logs()
