"""Input of an agent's model: the whole conversation in every request, as it is billed."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from toolbus_codemode.tokens.definition_cost import definition
from toolbus_codemode.tokens.tokenizer import Tokens

TOKENS = Tokens()
AROUND = 4  # tokens a message costs besides its text
SYSTEM = (
    "You work for the person who writes to you, with the tools you are given. Look things up "
    "rather than guess, do what is asked and nothing else, and answer with JSON alone."
)


@dataclass
class Conversation:
    """One conversation. `requests` contains the input tokens of every request."""

    definitions: int
    read: int = 0
    requests: list[int] = field(default_factory=list)
    received: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Add a message to the conversation."""
        self.read += TOKENS.of(text) + AROUND

    def receive(self, text: str) -> None:
        """Add a tool's answer, whose names the agent may use from now on."""
        self.received.append(text)
        self.add(text)

    def request(self) -> None:
        """Count a request to the model: system prompt, definitions and the whole conversation."""
        self.requests.append(SYSTEM_TOKENS + self.definitions + self.read)


SYSTEM_TOKENS = TOKENS.of(SYSTEM) + AROUND


def definitions_cost(tools: list[dict[str, Any]]) -> int:
    """Return the tokens of tools as a request lists them: name, description and input schema."""
    return sum(
        TOKENS.of(definition(tool["name"], tool.get("description", ""), tool["inputSchema"]))
        for tool in tools
    )


def written_call(tool: str, arguments: dict[str, Any]) -> str:
    """Return a tool call as the model writes it."""
    return msgspec.json.encode({"name": tool, "arguments": arguments}).decode()
