"""Frameworks of Python and SDKs of JavaScript work with a gateway's URL and key."""

import json
import subprocess
from pathlib import Path

import agents
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from harness.models.model_gateway import SECRETS, ModelGateway
from harness.packages import npm

TEXT = "hello w1 w2 w3 w4 "
PACKAGES = {
    "openai@7.57.0": "package.json",
    "@anthropic-ai/sdk@1.12.0": "package.json",
    "ai@7.0.173": "package.json",
    "@ai-sdk/openai@4.0.118": "package.json",
}
PROGRAM = Path(__file__).parent / "sdk_clients.mjs"
PROGRAM_SECONDS = 120.0  # bound for a broken run


def test_langchain(models: ModelGateway) -> None:
    chat = ChatOpenAI(base_url=f"{models.url}/v1", api_key=SECRETS["bot"], model="team-fast")
    assert chat.invoke("hello").content == TEXT
    assert "".join(each.content for each in chat.stream("hello")) == TEXT


def test_pydantic_ai(models: ModelGateway) -> None:
    provider = OpenAIProvider(base_url=f"{models.url}/v1", api_key=SECRETS["bot"])
    result = Agent(OpenAIChatModel("team-fast", provider=provider)).run_sync("hello")
    assert result.output == TEXT


async def test_openai_agents(models: ModelGateway) -> None:
    agents.set_tracing_disabled(disabled=True)
    async with openai.AsyncOpenAI(base_url=f"{models.url}/v1", api_key=SECRETS["bot"]) as client:
        for model in (
            agents.OpenAIResponsesModel(model="mock/mock", openai_client=client),
            agents.OpenAIChatCompletionsModel(model="team-fast", openai_client=client),
        ):
            result = await agents.Runner.run(agents.Agent(name="tester", model=model), "hello")
            assert result.final_output == TEXT


def test_sdks_of_javascript(models: ModelGateway, pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    directory = pytestconfig.cache.mkdir("node-models")
    for package, file in PACKAGES.items():
        npm.installed(package, file, directory)
    program = directory / PROGRAM.name  # imports are resolved from the program's directory
    program.write_bytes(PROGRAM.read_bytes())
    done = subprocess.run(
        [npm.NODE, program, models.url, SECRETS["bot"]],
        capture_output=True,
        check=False,
        timeout=PROGRAM_SECONDS,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    texts = ("chat", "chat_stream", "responses", "messages", "messages_stream", "ai_sdk")
    assert {found[name] for name in (*texts, "ai_sdk_stream")} == {TEXT}
    assert found["embedding"] == [0.5] * 4
    assert {"team-fast", "mock/mock", "claude/mock"} <= set(found["models"])
    assert found["unknown"] == ["NotFoundError", "model_not_found"]
    assert found["count_tokens"] == 9
