"""Frameworks of Python, unchanged, with a gateway's URL and key.

Usage: `python framework_clients.py URL KEY`; prints one JSON object with the text from each.
"""

import asyncio
import json
import sys

import agents
import openai
from langchain_openai import ChatOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


async def main(url: str, key: str) -> None:
    """Send a request with each framework."""
    found = {}
    chat = ChatOpenAI(base_url=url, api_key=key, model="team-fast")
    found["langchain"] = (await chat.ainvoke("hello")).content
    found["langchain stream"] = "".join([each.content async for each in chat.astream("hello")])
    provider = OpenAIProvider(base_url=url, api_key=key)
    pydantic_ai = Agent(OpenAIChatModel("team-fast", provider=provider))
    found["pydantic-ai"] = (await pydantic_ai.run("hello")).output
    agents.set_tracing_disabled(disabled=True)
    client = openai.AsyncOpenAI(base_url=url, api_key=key)
    for model in (
        agents.OpenAIResponsesModel(model="mock/mock", openai_client=client),
        agents.OpenAIChatCompletionsModel(model="team-fast", openai_client=client),
    ):
        result = await agents.Runner.run(agents.Agent(name="tester", model=model), "hello")
        found[f"openai-agents {type(model).__name__}"] = result.final_output
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(f"{sys.argv[1]}/v1", sys.argv[2]))
