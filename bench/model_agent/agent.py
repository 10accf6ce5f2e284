"""The agent: it sends the conversation to the model, and calls the tools that the model names."""

import json
import secrets
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import openai

from harness.agent_model.model import CONTEXT_TOKENS, MODEL
from harness.clients.mcp_client import Client
from model_agent.reply_form import ReplyError, parsed, reply_schema
from model_agent.setting import MODEL_SECONDS, PROVIDER, Setting, secret
from toolbus_common.mcp.builtin_server import DOCS, LIST, READ, SEARCH

MAX_TURNS = 8
MAX_REPLY = 512  # tokens
LONGEST_RESULT = 6_000  # characters
SEED = 7
ABOUT_TOOLS = frozenset({LIST, READ, DOCS, SEARCH})  # their results are about tools, not the task
PROMPT = (
    "You solve a task with tools. In each turn reply with one JSON object. To call a tool: "
    '{"tool": NAME, "arguments": {…}}. When you know the answer: {"answer": TEXT}. Look facts up '
    "with tools; do not guess. The answer is the requested value alone.\n\nThe tools are:\n"
)
UNRECORDED = frozenset({"messages", "has_looked_up"})
Message = dict[str, str]


@dataclass
class Talk:
    """One conversation and its figures."""

    messages: list[Message]
    turns: int = 0
    calls: list[str] = field(default_factory=list)
    failed_calls: int = 0
    has_looked_up: bool = False
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    ended: str = ""
    answer: str = ""

    def add(self, role: str, text: str) -> None:
        """Add a message to the conversation."""
        self.messages.append({"role": role, "content": text})


def system_prompt(tools: list[dict[str, Any]]) -> str:
    """Return the instructions with all definitions, one on each line."""
    lines = [
        json.dumps(
            {
                "name": tool["name"],
                "description": tool.get("description", ""),
                "parameters": tool["inputSchema"],
            },
            ensure_ascii=False,
        )
        for tool in tools
    ]
    return PROMPT + "\n".join(lines)


class Agent:
    """An agent with the tools of one key in one mode."""

    def __init__(self, setting: Setting, size: int, mode: str) -> None:
        self.tools = setting.tools(size, mode)
        self.prompt = system_prompt(self.tools)
        self.prompt_tokens = setting.model.count([{"role": "system", "content": self.prompt}])
        self._tools_client: Client = setting.client(size, mode)
        self._first, self._schema = (reply_schema(self.tools, answers=n) for n in (False, True))
        self._model = openai.OpenAI(
            base_url=setting.url,
            api_key=secret(f"sees_{size}"),
            max_retries=0,
            timeout=MODEL_SECONDS,
        )

    @property
    def fits(self) -> bool:
        """Whether the prompt leaves room for a short conversation."""
        return self.prompt_tokens + 2 * MAX_REPLY <= CONTEXT_TOKENS

    def run(self, question: str) -> dict[str, Any]:
        """Answer one question. Return the figures, the answer, and the conversation."""
        talk = Talk([{"role": "system", "content": self.prompt}])
        talk.add("user", question)
        trace, began = secrets.token_hex(16), monotonic()
        while not talk.ended and talk.turns < MAX_TURNS:
            self._turn(talk, trace)
        return {
            **{name: value for name, value in vars(talk).items() if name not in UNRECORDED},
            "ended": talk.ended or "no answer within the turns",
            "seconds": round(monotonic() - began, 1),
            "trace": trace,
            "conversation": talk.messages[1:],
        }

    def _turn(self, talk: Talk, trace: str) -> None:
        talk.turns += 1
        try:
            reply = self._reply(talk)
        except openai.BadRequestError as error:  # the conversation exceeds the context
            talk.ended = f"refused: {error.message[:200]}"
            return
        talk.add("assistant", reply)
        try:
            tool, content = parsed(reply)
        except ReplyError as error:
            talk.add("user", f"{error} Send a shorter reply, as one JSON object.")
            return
        if isinstance(content, str):
            talk.ended, talk.answer = "answered", content
            return
        talk.calls.append(tool)
        text, failed = result_of(self._tools_client.call(tool, content, trace).json)
        talk.failed_calls += failed
        talk.has_looked_up |= not failed and tool not in ABOUT_TOOLS
        if len(text) > LONGEST_RESULT:
            text = f"{text[:LONGEST_RESULT]}… ({len(text) - LONGEST_RESULT} more characters)"
        talk.add("user", f"{'Error' if failed else 'Result'} of {tool}:\n{text}")

    def _reply(self, talk: Talk) -> str:
        """Request one reply of the model through the gateway, and count its tokens.

        Until a call that looks something up has succeeded, the reply must be a call.
        """
        form = {"name": "reply", "schema": self._schema if talk.has_looked_up else self._first}
        request: dict[str, Any] = {
            "model": f"{PROVIDER}/{MODEL}",
            "messages": talk.messages,
            "max_tokens": MAX_REPLY,
            "temperature": 0,
            "seed": SEED,
            "response_format": {"type": "json_schema", "json_schema": form},
        }
        done = self._model.chat.completions.create(**request)
        if done.usage:
            details = done.usage.prompt_tokens_details
            talk.input_tokens += done.usage.prompt_tokens
            talk.cached_tokens += (details.cached_tokens or 0) if details else 0
            talk.output_tokens += done.usage.completion_tokens
        return done.choices[0].message.content or ""


def result_of(reply: dict[str, Any]) -> tuple[str, bool]:
    """Return the text of a tool call's result, and whether it is an error."""
    if "error" in reply:
        return str(reply["error"]["message"]), True
    result = reply["result"]
    texts = [str(each["text"]) for each in result["content"] if each.get("type") == "text"]
    return "\n".join(texts), bool(result.get("isError"))
