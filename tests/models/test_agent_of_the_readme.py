"""The README's agent as a newcomer runs it, with a real model that calls tools."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from harness.agent_model.model import TOOL_TEMPLATE, ModelServer, model_file
from harness.gateway.launched_gateway import Launched
from harness.waits import until_blocking
from toolbus_common.contracts import ApprovalsQuery, ApprovalsReply
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
PATIENCE = 900.0  # seconds; a busy machine evaluates few tokens per second
DELETION, MODEL = "memory__delete_entities", "local/model"


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Launched]:
    """Run `toolbus up -c agent.yaml` with the README's file, and its model."""
    assert pytestconfig.cache is not None
    file = model_file(pytestconfig.cache.mkdir("agent_model"))
    directory = tmp_path_factory.mktemp("readme")
    document = yaml.safe_load(sample("yaml", "agent.yaml"))
    server = ModelServer(directory / "model", file, 1, TOOL_TEMPLATE, niceness=0)
    with server.running() as model:
        document["providers"]["local"]["url"] = model.url
        gateway = Launched(directory / "gateway")
        gateway.directory.mkdir()
        with gateway.running(document):
            gateway.until_listed(gateway.client(gateway.ready["key"]), DELETION)
            yield gateway


def sample(language: str, words: str) -> str:
    """Return the README's sample that contains these words."""
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(each for each in found if words in each)  # type: ignore[no-any-return]


def shown(gateway: Launched, *words: str) -> Any:
    """Run a command and return the JSON that it shows."""
    result = gateway.toolbus(*words, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def waits(gateway: Launched) -> bool:
    """Return whether a call waits for an approval."""

    async def request(bus: Bus) -> ApprovalsReply:
        return await RequestReply(OPERATOR, bus).request(ApprovalsQuery(), ApprovalsReply)

    # A command for each question would take the processor from the model.
    return bool(gateway.on_the_bus(request).approvals)


def waits_or_ended(gateway: Launched, asking: subprocess.Popen[str]) -> bool:
    """Return whether a call waits for an approval or the program has ended."""
    return asking.poll() is not None or waits(gateway)


def approved(gateway: Launched) -> dict[str, Any]:
    """Approve the call that waits, and return it."""
    (waiting,) = shown(gateway, "approvals")["approvals"]
    assert gateway.toolbus("approve", waiting["id"]).returncode == 0
    return waiting  # type: ignore[no-any-return]


def started(gateway: Launched) -> subprocess.Popen[str]:
    """Start the README's program."""
    program = gateway.directory / "agent.py"
    text = sample("python", "from openai import").replace("tbk_…", gateway.ready["key"])
    program.write_text(text.replace("http://127.0.0.1:8080/v1", base_url(gateway)))
    words = [sys.executable, str(program)]
    return subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def base_url(gateway: Launched) -> str:
    """Return the base URL of OpenAI's SDK."""
    return str(gateway.ready["endpoint"]).removesuffix("/mcp") + "/v1"


def test_the_key_sees_its_model(gateway: Launched) -> None:
    with openai.OpenAI(base_url=base_url(gateway), api_key=gateway.ready["key"]) as client:
        assert [each.id for each in client.models.list()] == [MODEL]


def test_the_agents_deletion_waits_for_a_person(gateway: Launched) -> None:
    asking = started(gateway)
    try:
        until_blocking(lambda: waits_or_ended(gateway, asking), "the deletion", PATIENCE)
        assert json.loads(approved(gateway)["arguments"]) == {"entityNames": ["Ann"]}
        answers, _ = asking.communicate(timeout=PATIENCE)
    finally:
        asking.kill()
    assert asking.returncode == 0
    assert answers.count("ChatCompletion(") == 2
    runs = sorted(shown(gateway, "runs", "list")["runs"], key=lambda run: run["started"])
    assert [run["state"] for run in runs] == ["completed", "completed"], answers
    steps = [shown(gateway, "runs", "show", run["run"])["steps"] for run in runs]
    used = [[step["name"] for step in each if step["kind"] == "tool"] for each in steps]
    assert used == [["memory__create_entities"], [DELETION]]


def test_a_saved_query_returns_tokens_and_tools_of_each_run(gateway: Launched) -> None:
    def rows() -> Any:
        found = shown(gateway, "audit", "query", "--saved", "cost-by-run")
        return found if sum(int(row["tool_calls"]) for row in found) == 2 else None

    for row in until_blocking(rows, "the calls in the audit log"):
        assert int(row["input_tokens"]) > 0
        assert int(row["output_tokens"]) > 0
        assert float(row["model_dollars"]) > 0
        assert float(row["tool_dollars"]) == 0.001
        both = float(row["model_dollars"]) + float(row["tool_dollars"])
        assert float(row["dollars"]) == pytest.approx(both)


def test_the_budget_stops_the_program_when_it_is_started_again(gateway: Launched) -> None:
    asking = started(gateway)
    try:
        while asking.poll() is None:
            until_blocking(partial(waits_or_ended, gateway, asking), "the program", PATIENCE)
            if asking.poll() is None:
                approved(gateway)
        _, errors = asking.communicate(timeout=PATIENCE)
    finally:
        asking.kill()
    assert asking.returncode
    assert "APIStatusError: Error code: 402" in errors
    assert "Budget exceeded" in errors
