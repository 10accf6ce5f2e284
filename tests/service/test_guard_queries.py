"""Checks of content that other services request from executor over the bus."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from time import time
from typing import Any

import pytest

from harness.apis.model_provider import ModelProvider, ModelRequest
from harness.audit.events import bus_of
from harness.upstreams.scripted_server import serving
from harness.waits import until_async
from toolbus_common.config import Configuration, Guard, Server
from toolbus_common.contracts import (
    CheckedCall,
    GuardQuery,
    ServersQuery,
    ServersReply,
    ServiceVerdict,
)
from toolbus_common.errors import GuardFailedError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.settings import Settings
from toolbus_executor.main import build

SECONDS = 60.0
TOOL = {"name": "check", "inputSchema": {"type": "object"}}
OTHER = {"name": "other", "inputSchema": {"type": "object"}}
VERDICT = {"flagged": True, "findings": [{"rule": "secret-plan", "score": 0.7}]}


@asynccontextmanager
async def executor(operator: Bus, **sections: Any) -> AsyncIterator[RequestReply]:
    """Run an executor with this configuration. Its servers and guards are ready."""
    config = await operator.bucket(CONFIG)
    declared = Configuration.model_validate(sections)
    await config.put("configuration", declared.model_dump_json().encode())
    queries = RequestReply(OPERATOR, operator)
    wanted = {*declared.servers, *(f"guard:{each}" for each in declared.guards)}

    async def is_ready() -> bool:
        rows = (await queries.request(ServersQuery(), ServersReply, SECONDS)).servers
        return {each["name"] for each in rows if each["state"] == "ready"} >= wanted

    async with build(ProcessContext()).running():
        await until_async(is_ready, "the servers and guards")
        yield queries


async def asked(bus: Bus, guard: str, content: Any) -> ServiceVerdict:
    """Return the verdict that policy gets for a content."""
    call = CheckedCall(
        call_id="c-1",
        customer="acme",
        key="k",
        server="docs",
        tool="search",
        deadline=time() + SECONDS,
    )
    query = GuardQuery(
        guard=guard, phase="arguments", call=call, content=json.dumps(content).encode()
    )
    return await RequestReply("policy", bus).request(query, ServiceVerdict, SECONDS)


@pytest.fixture
async def policy(settings: Settings) -> AsyncIterator[Bus]:
    """Connect with the permissions of policy."""
    async with bus_of("policy", settings) as bus:
        yield bus


@pytest.fixture
def checker() -> Iterator[str]:
    """Serve a tool that finds something in every content, and one that reports an error."""
    results = {
        "check": {"content": [{"type": "text", "text": json.dumps(VERDICT)}]},
        "other": {"content": [{"type": "text", "text": "no evil"}], "isError": True},
    }
    with serving({"lists": {"tools": [TOOL, OTHER]}, "results": results}) as url:
        yield url


def guard(url: str, **more: Any) -> dict[str, Any]:
    """Return the fields of a guard of kind http."""
    fields = {"kind": "http", "on": ["arguments"], "action": "block", "timeout": 30, "url": url}
    return Guard.model_validate(fields | more).model_dump()


async def test_policy_gets_the_verdict_of_a_service(
    operator: Bus, policy: Bus, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply({"flagged": "evil" in request.json["texts"], "findings": ["bad"]})

    model.answer = answer
    async with executor(operator, guards={"g": guard(model.url)}):
        found = await asked(policy, "g", {"q": "evil"})
        assert (found.findings, found.cached) == (("bad",), False)
        assert (await asked(policy, "g", {"q": "evil"})).cached
        assert (await asked(policy, "g", {"q": "good"})).findings == ()
        sent = model.requests[0].json
        about = {"phase": "arguments", "customer": "acme", "server": "docs", "tool": "search"}
        assert sent == about | {"texts": ["q", "evil"]}


async def test_policy_gets_the_reason_of_a_service_that_fails(
    operator: Bus, policy: Bus, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply({}, 503)

    model.answer = answer
    async with executor(operator, guards={"g": guard(model.url)}) as queries:
        with pytest.raises(GuardFailedError, match="HTTP 503") as failed:
            await asked(policy, "g", {"q": "evil"})
        assert failed.value.data["guard"] == "g"
        with pytest.raises(GuardFailedError, match="has no guard 'other'"):
            await asked(policy, "other", {"q": "evil"})
        rows = (await queries.request(ServersQuery(), ServersReply, SECONDS)).servers
        row = next(each for each in rows if each["name"] == "guard:g")
        assert (row["kind"], row["state"], row["breaker"]) == ("http", "ready", "closed")
        assert "HTTP 503" in row["last_failure"]


async def test_a_changed_guard_asks_its_new_service(
    operator: Bus, policy: Bus, model: ModelProvider
) -> None:
    async def answer(request: ModelRequest) -> None:
        await request.reply({"flagged": True, "findings": [request.path]})

    model.answer = answer
    async with executor(operator, guards={"g": guard(f"{model.url}/old")}):
        assert (await asked(policy, "g", {"q": 1})).findings == ("/v1/old",)
        changed = Configuration.model_validate({"guards": {"g": guard(f"{model.url}/new")}})
        config = await operator.bucket(CONFIG)
        await config.put("configuration", changed.model_dump_json().encode())

        async def is_new() -> bool:
            return (await asked(policy, "g", {"q": 1})).findings == ("/v1/new",)

        await until_async(is_new, "the new service")


async def test_a_tool_of_a_server_checks_content_without_a_call_of_its_own(
    operator: Bus, policy: Bus, checker: str
) -> None:
    fields = {"kind": "mcp", "on": ["arguments"], "action": "block", "timeout": 30}
    guards = {
        name: Guard.model_validate(fields | {"server": "guardian", "tool": tool}).model_dump()
        for name, tool in (("g", "check"), ("broken", "other"))
    }
    servers = {"guardian": Server(url=checker).model_dump()}
    async with executor(operator, guards=guards, servers=servers):
        found = await asked(policy, "g", {"q": "the plan"})
        assert (found.findings, found.score) == (("secret-plan",), 0.7)
        with pytest.raises(GuardFailedError, match="The tool reported an error") as failed:
            await asked(policy, "broken", {"q": "the plan"})
        assert "evil" not in failed.value.reason
