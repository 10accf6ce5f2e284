"""The README's agent as a newcomer runs it, with a real model that calls tools."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
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


def waits(gateway: Launched, asking: subprocess.Popen[str]) -> bool:
    """Return whether a call waits for an approval while the program runs."""
    assert asking.poll() is None, asking.communicate()

    async def request(bus: Bus) -> ApprovalsReply:
        return await RequestReply(OPERATOR, bus).request(ApprovalsQuery(), ApprovalsReply)

    # A command for each question would take the processor from the model.
    return bool(gateway.on_the_bus(request).approvals)


def base_url(gateway: Launched) -> str:
    """Return the base URL of OpenAI's SDK."""
    return str(gateway.ready["endpoint"]).removesuffix("/mcp") + "/v1"


def test_the_key_sees_its_model(gateway: Launched) -> None:
    with openai.OpenAI(base_url=base_url(gateway), api_key=gateway.ready["key"]) as client:
        assert [each.id for each in client.models.list()] == [MODEL]


def test_the_agents_deletion_waits_for_a_person(gateway: Launched) -> None:
    program = gateway.directory / "agent.py"
    text = sample("python", "from openai import").replace("tbk_…", gateway.ready["key"])
    program.write_text(text.replace("http://127.0.0.1:8080/v1", base_url(gateway)))
    asking = subprocess.Popen([sys.executable, str(program)], text=True, stdout=subprocess.PIPE)
    try:
        until_blocking(lambda: waits(gateway, asking), "the deletion", PATIENCE)
        (waiting,) = shown(gateway, "approvals")["approvals"]
        assert json.loads(waiting["arguments"]) == {"entityNames": ["Ann"]}
        assert gateway.toolbus("approve", waiting["id"]).returncode == 0
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


def test_one_question_reads_tokens_and_tools_of_each_run(gateway: Launched) -> None:
    def rows() -> Any:
        found = shown(gateway, "audit", "query", "--saved", "cost-by-run")
        return found if sum(int(row["tool_calls"]) for row in found) == 2 else None

    for row in until_blocking(rows, "the calls in the audit log"):
        assert int(row["input_tokens"]) > 0
        assert int(row["output_tokens"]) > 0
        assert float(row["model_dollars"]) > 0
        assert float(row["tool_dollars"]) == 0.0001
        both = float(row["model_dollars"]) + float(row["tool_dollars"])
        assert float(row["dollars"]) == pytest.approx(both)


def test_the_budget_stops_the_agent(gateway: Launched) -> None:
    document = yaml.safe_load(gateway.config.read_text())
    document["keys"]["bot"]["budget"]["usd"] = 0.0001  # less than was spent
    gateway.configure(document)
    messages: Any = [{"role": "user", "content": "Remember that Bob likes coffee."}]
    with openai.OpenAI(
        base_url=base_url(gateway), api_key=gateway.ready["key"], max_retries=0
    ) as client:

        def refusal() -> openai.APIStatusError | None:
            try:
                client.chat.completions.create(model=MODEL, messages=messages)
            except openai.APIStatusError as error:
                return error
            return None

        error = until_blocking(refusal, "the budget applies", PATIENCE)
    assert error.status_code == 402
    assert "Budget exceeded" in error.message
