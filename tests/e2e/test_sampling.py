"""Sampling requests of real servers of both families, answered by a model under governance."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness.clients.bus_operator import key
from harness.clients.mcp_client import Answer, Client
from harness.models.model_gateway import ModelGateway, running_models
from harness.waits import until_blocking

SECRETS = {name: f"tbk_{name}_a-secret-of-samplers" for name in ("ann", "poor", "none", "boss")}
TESTS = str(Path(__file__).parents[1])
TEXT = "Who? w1 w2 w3 w4 "
MODERN = "2026-07-28"
FAMILIES = ("legacy", "modern")
TOOLS = tuple(f"{name}__test_sampling" for name in (*FAMILIES, "asked", "off"))


def server(family: str, **sampling: Any) -> dict[str, Any]:
    """Return the declaration of a server that samples in this family."""
    command = [sys.executable, "-m", "fixture_server", "--stdio", "--family", family]
    place = {"env": {"PYTHONPATH": TESTS}, "cwd": TESTS}
    return {"command": command, **place, **({"sampling": sampling} if sampling else {})}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelGateway]:
    """Run a gateway with sampling servers, and mock providers for their requests."""
    model = {"model": "team-fast", "max_tokens": 50}
    more = {
        "servers": {
            **{family: server(family, **model) for family in FAMILIES},
            "asked": server("legacy", **model, approve=True),
            "off": server("legacy"),
        },
        "keys": {
            "ann": key(SECRETS["ann"], models=["team-fast"], budget={"usd": 100, "per": "month"}),
            "poor": key(SECRETS["poor"], models=["*"], budget={"usd": 0.000_001, "per": "month"}),
            "none": key(SECRETS["none"]),
            "boss": key(SECRETS["boss"], rights=["approve"]),
        },
    }
    with running_models(tmp_path_factory.mktemp("sampling"), fused=True, more=more) as gateway:
        gateway.cluster.until_listed(gateway.cluster.client(SECRETS["ann"]), *TOOLS)
        yield gateway


@pytest.fixture
def models(running: ModelGateway) -> ModelGateway:
    """Return the gateway. Its providers have no records."""
    running.forget()
    return running


def call(gateway: ModelGateway, server: str, name: str = "ann", run: str = "") -> Answer:
    """Call the sampling tool of a server as a stateless client without own capabilities."""
    tool = f"{server}__test_sampling"
    params = {"name": tool, "arguments": {"prompt": "Who?"}}
    meta: dict[str, Any] = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    if run:
        meta["traceparent"] = f"00-{run}-00000000000000aa-01"
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**params, "_meta": meta}}
    headers = {
        "mcp_protocol_version": MODERN,
        "mcp_method": "tools/call",
        "mcp_name": tool,
    }
    return gateway.cluster.client(SECRETS[name]).post(body, **headers)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_answers_a_server_of_either_family(models: ModelGateway, family: str) -> None:
    run = {"legacy": "1", "modern": "2"}[family] * 32
    assert call(models, family, run=run).text == f"LLM response: {TEXT}"
    (sent,) = models.mock.received()
    assert sent.body == {
        "model": "mock",
        "messages": [{"role": "user", "content": "Who?"}],
        "max_completion_tokens": 50,
    }
    rows = models.cluster.eventual_events(
        f"trace_id = '{run}' AND event = 'model.used'", "model.used"
    )
    parents = models.cluster.eventual_events(f"call_id = '{rows['model.used']['parent_id']}'")
    assert next(iter(parents.values()))["server"] == family


@pytest.mark.parametrize("family", FAMILIES)
def test_the_budget_of_the_caller_pays(models: ModelGateway, family: str) -> None:
    answer = call(models, family, "poor").json
    assert "budget_exceeded" in json.dumps(answer)
    assert models.mock.received() == []


def test_without_a_grant_or_a_declared_model_sampling_is_refused(models: ModelGateway) -> None:
    for server, name in (("legacy", "none"), ("modern", "none"), ("off", "ann")):
        assert TEXT not in call(models, server, name).body.decode()
    assert models.mock.received() == []


def test_a_session_based_client_needs_no_model_of_its_own(models: ModelGateway) -> None:
    client = models.cluster.client(SECRETS["ann"])
    assert client.call("legacy__test_sampling", {"prompt": "Who?"}).text == f"LLM response: {TEXT}"


def test_a_suggested_call_over_the_rest_api_can_sample(models: ModelGateway) -> None:
    function = {"name": "legacy__test_sampling", "arguments": '{"prompt": "Who?"}'}
    body = {"id": "c1", "type": "function", "function": function}
    answer = Client(f"{models.url}/v1/mcp/tools/execute", SECRETS["ann"]).post(body)
    assert f"LLM response: {TEXT}" in answer.json["content"]


def test_a_person_sees_the_prompt_and_approves_it(models: ModelGateway) -> None:
    approvals = f"{models.url}/api/approvals"
    boss = Client(approvals, SECRETS["boss"])

    def pending() -> dict[str, Any] | None:
        found = boss.get(approvals).json["approvals"]
        return next((each for each in found if each["state"] == "pending"), None)

    for action, text in (("approve", f"LLM response: {TEXT}"), ("reject", "rejected")):
        with ThreadPoolExecutor(1) as pool:
            calling = pool.submit(call, models, "asked")
            waiting: dict[str, Any] = until_blocking(pending, "the approval")
            assert "Who?" in waiting["arguments"]
            assert waiting["cause"] == "server:asked"
            decision = Client(f"{approvals}/{waiting['id']}/{action}", SECRETS["boss"])
            assert decision.post({"note": "n"}).status == 200
            assert text in calling.result().body.decode()
    assert len(models.mock.received()) == 1
