"""Gateway with a scripted model, an upstream that logs its calls, and keys with agent mode."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
from openai.types.chat import ChatCompletion

from harness.clients.bus_operator import key
from harness.gateway.cluster import Cluster, Upstream
from harness.models.mock_provider import MockProvider
from harness.waits import PATIENCE
from toolbus_common.config import Configuration, Key
from toolbus_common.contracts import (
    ApprovalsReply,
    ApproveRequest,
    BudgetState,
    LedgerQuery,
    LedgerReply,
    RejectRequest,
)
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR

MODEL = "mock/mock"
CLAUDE = "claude/mock"
PROMPT: list[Any] = [{"role": "user", "content": "go"}]
TEXT = "w1 w2 w3 w4 "  # after the first word, which repeats the last message
SECONDS = 8.0  # of a call whose executor was killed
RUN_ID, RUN = "x-toolbus-run-id", "x-toolbus-run"
MICRO_PER_CALL = 1_000  # of a tool
AUTOMATIC = ["shop__say", "shop__count", "shop__wait", "shop__drip", "shop__complain"]
AGENTS: dict[str, dict[str, Any]] = {
    "bot": {},
    "other": {},
    "turns": {"turns": 2},
    "calls": {"calls": 1},
    "per-tool": {"calls_per_tool": 1},
    "repeats": {"repeats": 1},
    "tokens": {"tokens": 1},
    "usd": {"usd": 0.018},
}
FLOWS = ("refuse", "ask", "flag")  # keys with agent mode and this information flow
LABELS = {
    "count": {"reads": "private", "writes": "nothing"},
    "drip": {"reads": "untrusted", "writes": "nothing"},
    "say": {"reads": [], "writes": "outside"},
}


def secret_of(name: str) -> str:
    """Return the secret of a key."""
    return f"tbk_{name}_a-secret-of-agents"


def call(name: str, **arguments: Any) -> dict[str, Any]:
    """Return a scripted call of a tool of the upstream."""
    return {"name": f"shop__{name}", "arguments": arguments}


@dataclass(frozen=True)
class AgentGateway:
    """The gateway. `mock` serves both APIs; `upstream` is the server `shop`."""

    cluster: Cluster
    mock: MockProvider
    upstream: Upstream

    @property
    def url(self) -> str:
        """The URL of the gateway."""
        return self.cluster.client("").endpoint.removesuffix("/mcp")

    def openai(self, name: str = "bot") -> openai.OpenAI:
        """Return the unchanged SDK of OpenAI, without its retries."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=secret_of(name), max_retries=0)

    def anthropic(self, name: str = "bot") -> anthropic.Anthropic:
        """Return the unchanged SDK of Anthropic, without its retries."""
        return anthropic.Anthropic(base_url=self.url, api_key=secret_of(name), max_retries=0)

    def http(self, name: str = "bot") -> httpx2.Client:
        """Return an HTTP client with a key."""
        headers = {"authorization": f"Bearer {secret_of(name)}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE)

    def chat(self, script: list[Any], name: str = "bot", **fields: Any) -> ChatCompletion:
        """Send a chat request whose model makes the calls of a script."""
        with self.openai(name) as client:
            return client.chat.completions.create(  # type: ignore[no-any-return]
                model=fields.pop("model", MODEL),
                messages=fields.pop("messages", PROMPT),
                extra_body={"script": script, **fields.pop("extra_body", {})},
                **fields,
            )

    def calls(self) -> list[str]:
        """Return the tools that the upstream was called with, in their order."""
        return [str(each["tool"]) for each in self.upstream.arrived()]

    def forget(self) -> None:
        """Remove the records of the provider and of the upstream."""
        self.mock.forget()
        self.upstream.call_log.write_bytes(b"")

    def budget(self, name: str) -> BudgetState:
        """Return the state of a key's budget."""
        reply: LedgerReply = self._ask(LedgerQuery(customer="default"), LedgerReply)
        return next(each for each in reply.budgets if each.level == f"key:{name}")

    def approve(self, approval: str) -> None:
        """Approve a call as an operator."""
        self._ask(ApproveRequest(id=approval, by="ann"), ApprovalsReply)

    def reject(self, approval: str) -> None:
        """Reject a call as an operator."""
        self._ask(RejectRequest(id=approval, by="ann", note="not today"), ApprovalsReply)

    def _ask(self, query: Any, reply: Any) -> Any:
        async def request(bus: Bus) -> Any:
            return await RequestReply(OPERATOR, bus).request(query, reply, PATIENCE)

        return self.cluster.on_the_bus(request)


@contextmanager
def running_agents(
    directory: Path, *, fused: bool = True, **environment: str
) -> Iterator[AgentGateway]:
    """Run the gateway, the provider and the upstream."""
    with ExitStack() as stack:
        mock = stack.enter_context(MockProvider(directory / "mock").running())
        upstream = stack.enter_context(Upstream(directory / "shop").running())
        cluster = Cluster(directory / "cluster", **environment)
        gateway = AgentGateway(cluster, mock, upstream)
        declared = configuration(mock, upstream)
        stack.enter_context(cluster.running(declared, fused=fused, additional=("codemode",)))
        cluster.until_listed(cluster.client(secret_of("bot")), "shop__say")
        yield gateway


def configuration(mock: MockProvider, upstream: Upstream) -> Configuration:
    """Return the configuration."""

    def provider(kind: str, **fields: Any) -> dict[str, Any]:
        return {
            "kind": kind,
            "url": mock.url,
            "key": "sk-mock",
            "models": ["mock"],
            "max_total_timeout": 2 * SECONDS,
            **fields,
        }

    return Configuration.model_validate(
        {
            "servers": {"shop": {"url": upstream.url, "timeout": SECONDS, "tools": LABELS}},
            "providers": {
                "mock": provider("openai", apis=["chat", "responses"]),
                "claude": provider("anthropic"),
            },
            "models": {
                "shaky": [
                    {"provider": "mock", "model": "mock:status=409"},
                    {"provider": "mock", "model": "mock"},
                ]
            },
            "model_prices": {"*": {"input": 1.0, "output": 2.0}},
            "prices": {"shop__*": MICRO_PER_CALL / 1e6},
            "keys": {name: _key(name, limits) for name, limits in AGENTS.items()}
            | {"plain": _key("plain", None)}
            | {name: _key(name, {}, flow=name) for name in FLOWS},
        }
    )


def _key(name: str, limits: dict[str, Any] | None, **fields: Any) -> Key:
    agent = {} if limits is None else {"agent": limits}
    return key(
        secret_of(name),
        "shop__*",
        models=["*"],
        auto_execute=AUTOMATIC,
        approve=["shop__push_branch"],
        budget={"usd": 100, "per": "month"},
        **agent,
        **fields,
    )
