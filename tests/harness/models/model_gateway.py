"""Gateway with mock providers of models, and keys with and without limits."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai

from harness.clients.bus_operator import Row, key
from harness.engines.engine import installed
from harness.gateway.cluster import Cluster
from harness.models.mock_provider import MockProvider
from harness.waits import PATIENCE, until_blocking
from toolbus_common.config import Configuration, Key
from toolbus_common.contracts import BudgetState, LedgerQuery, LedgerReply
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR

INPUT, OUTPUT = 1.0, 2.0  # prices in dollars per million tokens: micro-dollars per token
PROVIDER_KEY = "sk-live-a-secret-of-the-provider-8f3a"
SECRETS = {
    name: f"tbk_{name}_a-secret-of-models" for name in ("bot", "race", "poor", "narrow", "guarded")
}
POOR_MICRO = 20_000
ALIASES: dict[str, list[dict[str, Any]]] = {
    "team-fast": [{"provider": "mock", "model": "mock"}],
    "shaky": [
        {"provider": "mock", "model": "mock:status=409"},  # 503 would count for the breaker
        {"provider": "spare", "model": "mock"},
    ],
    "refusing": [
        {"provider": "mock", "model": "mock:status=400"},
        {"provider": "spare", "model": "mock"},
    ],
    "breaking": [
        {"provider": "mock", "model": "mock:reset=2,gap=20"},
        {"provider": "spare", "model": "mock"},
    ],
    "mortal": [
        {"provider": "victim", "model": "mock"},
        {"provider": "spare", "model": "mock"},
    ],
}


@dataclass(frozen=True)
class ModelGateway:
    """A gateway, and its providers. `mock` also serves as the Anthropic provider `claude`."""

    cluster: Cluster
    mock: MockProvider
    spare: MockProvider
    victim: MockProvider

    @property
    def url(self) -> str:
        """The URL of the gateway."""
        return self.cluster.client("").endpoint.removesuffix("/mcp")

    def openai(self, name: str = "bot") -> openai.OpenAI:
        """Return the unchanged SDK of OpenAI with a key of the gateway, without its retries."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=SECRETS[name], max_retries=0)

    def anthropic(self, name: str = "bot") -> anthropic.Anthropic:
        """Return the unchanged SDK of Anthropic with a key of the gateway, without its retries."""
        return anthropic.Anthropic(base_url=self.url, api_key=SECRETS[name], max_retries=0)

    def budget(self, name: str) -> BudgetState:
        """Return the state of a key's budget."""

        async def request(bus: Bus) -> LedgerReply:
            return await RequestReply(OPERATOR, bus).request(
                LedgerQuery(customer="default"), LedgerReply, PATIENCE
            )

        found = self.cluster.on_the_bus(request).budgets
        return next(each for each in found if each.level == f"key:{name}")

    def settled(self, name: str) -> BudgetState:
        """Wait until no call of a key is reserved, and return the state of its budget."""

        def settled() -> BudgetState | None:
            budget = self.budget(name)
            return None if budget.reserved else budget

        found: BudgetState = until_blocking(settled, f"the settlement of {name}")
        return found

    def events(self, call_id: str, *names: str) -> dict[str, Row]:
        """Wait until audit has these events of a call, and return its events by name."""
        return self.cluster.eventual_events(f"call_id = '{call_id}'", *names)

    def command(self, *words: str) -> Any:
        """Run a command of an operator, and return the JSON that it shows."""
        result = subprocess.run(
            [installed("toolbus"), *words, "--state-dir", str(self.cluster.state_dir), "--json"],
            capture_output=True, text=True, timeout=180, check=False,
            env={**os.environ, "TOOLBUS_NATS_URL": self.cluster.nats_url},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def forget(self) -> None:
        """Remove the records of all providers."""
        for provider in (self.mock, self.spare, self.victim):
            provider.forget()


def cost(usage: dict[str, int]) -> int:
    """Return the price in micro-dollars of the tokens that a provider recorded."""
    return round(usage.get("input", 0) * INPUT + usage.get("output", 0) * OUTPUT)


@contextmanager
def running_models(
    directory: Path, *, fused: bool, more: dict[str, Any] | None = None
) -> Iterator[ModelGateway]:
    """Run the gateway and its providers; `more` are more providers, aliases, servers and keys."""
    with ExitStack() as stack:
        mock, spare, victim = (
            stack.enter_context(MockProvider(directory / name).running())
            for name in ("mock", "spare", "victim")
        )
        cluster = Cluster(directory / "cluster")
        gateway = ModelGateway(cluster, mock, spare, victim)
        stack.enter_context(cluster.running(_configuration(gateway, more or {}), fused=fused))
        until_blocking(lambda: _ready(gateway), "the providers")
        gateway.forget()
        yield gateway


def _ready(gateway: ModelGateway) -> bool:
    """Return whether every provider answers through the gateway."""
    with gateway.openai() as client:
        try:
            for provider in ("mock", "spare", "victim"):
                model = f"{provider}/mock"
                client.chat.completions.create(
                    model=model, max_tokens=1, messages=[{"role": "user", "content": "ready"}]
                )
        except openai.APIError:
            return False
    return True


def _configuration(gateway: ModelGateway, more: dict[str, Any]) -> Configuration:
    def provider(kind: str, mock: MockProvider, **fields: Any) -> dict[str, Any]:
        return {"kind": kind, "url": mock.url, "key": PROVIDER_KEY, "models": ["mock"], **fields}

    apis = ["chat", "responses", "embeddings"]
    return Configuration.model_validate(
        {
            "providers": {
                "mock": provider("openai", gateway.mock, apis=apis),
                "spare": provider("openai", gateway.spare, apis=apis),
                "victim": provider("openai", gateway.victim, apis=apis),
                "claude": provider("anthropic", gateway.mock),
                "cached": provider("openai", gateway.mock, apis=apis, cache={}),
                **more.get("providers", {}),
            },
            "models": {**ALIASES, **more.get("models", {})},
            "servers": more.get("servers", {}),
            "guards": {"tokens": {"kind": "secrets", "on": ["completions"], "action": "block"}},
            "model_prices": {"*": {"input": INPUT, "output": OUTPUT}},
            "keys": {
                "bot": _key("bot", ["*"], 100),
                "race": _key("race", ["*"], 100),
                "poor": _key("poor", ["*"], POOR_MICRO / 1e6),
                "narrow": _key("narrow", ["team-fast"], 100),
                "guarded": _key("guarded", ["*"], 100, guards=["tokens"]),
                **more.get("keys", {}),
            },
        }
    )


def _key(name: str, models: list[str], usd: float, **more: Any) -> Key:
    return key(SECRETS[name], models=models, budget={"usd": usd, "per": "month"}, **more)
