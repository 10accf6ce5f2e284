"""The HTTP edge for models, with a policy that admits all calls and a scripted executor."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from harness.builders.configurations import configuration_change, configured
from harness.services.call_chain import Chain, chain, running
from harness.waits import PATIENCE
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.contracts import (
    CallAdmitted,
    CallCancelled,
    CallError,
    CallRequested,
    CallResult,
    Notification,
)
from toolbus_common.contracts.model_calls import CHUNK
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import ToolbusError
from toolbus_common.service.asgi_server import serving
from toolbus_common.settings import Settings
from toolbus_ingress.app import App
from toolbus_ingress.http.server import limits_of
from toolbus_ingress.main import application, endpoint_of
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.sessions.sealed_claims import ClaimSealer
from toolbus_ingress.settings import Settings as IngressSettings

Provider = Callable[["ProviderCall"], Awaitable[Reply | None]]

SECRET, NARROW = "tbk_bot_a-secret-of-the-model-edge", "tbk_narrow_another-secret"
ORIGIN = "https://scripts.example"
LARGEST_BODY = 64 * 1024
DECLARED: dict[str, Any] = {
    "providers": {
        "local": {"kind": "openai", "url": "http://127.0.0.1:9/v1", "models": ["gemma"]},
        "claude": {"kind": "anthropic", "key": "a-provider-key", "models": ["haiku"]},
    },
    "models": {
        "fast": [
            {"provider": "local", "model": "gemma", "weight": 1},
            {"provider": "claude", "model": "haiku"},
        ],
        "hidden": [{"provider": "claude", "model": "haiku"}],
    },
}


@dataclass(frozen=True)
class ProviderCall:
    """One admitted call of a model, as an executor sees it."""

    call: CallAdmitted
    context: CallContext

    async def chunk(self, data: bytes) -> None:
        """Send a part of the event stream."""
        await self.context.send(Notification(CHUNK, data))


def answers(body: bytes) -> Provider:
    """Return a provider that answers with this body."""

    async def answer(_call: ProviderCall) -> Reply:
        return CallResult(body)

    return answer


def streams(*chunks: bytes, error: ToolbusError | None = None) -> Provider:
    """Return a provider that streams these chunks, and then ends or fails."""

    async def stream(call: ProviderCall) -> Reply:
        for chunk in chunks:
            await call.chunk(chunk)
        return CallError(error) if error else CallResult(b"")

    return stream


def fails(error: ToolbusError) -> Provider:
    """Return a provider that fails."""
    return streams(error=error)


@dataclass
class ModelEdge:
    """Clients of the models API. `providers` play the providers, by their names."""

    app: App
    endpoint: Endpoint
    made: Chain
    client: httpx2.AsyncClient
    providers: dict[str, Provider]
    cancelled: list[str] = field(default_factory=list)
    _revision: int = 1

    @property
    def calls(self) -> list[CallRequested]:
        """The calls that ingress has sent."""
        return self.made.admitted

    async def post(self, path: str = "/v1/chat/completions", **fields: Any) -> httpx2.Response:
        """Send a request for the alias `fast`, unless `fields` name another model."""
        return await self.send(path, {"model": "fast", **fields})

    async def send(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        """Send a body with the key in `authorization`, and with these headers."""
        return await self.client.post(
            path, content=json.dumps(body).encode(), headers=self.headers(**headers)
        )

    def stream(self, path: str = "/v1/chat/completions", **fields: Any) -> Any:
        """Open a streamed request for the alias `fast`."""
        body = json.dumps({"model": "fast", "stream": True, **fields}).encode()
        return self.client.stream("POST", path, content=body, headers=self.headers())

    def declare(self, **sections: Any) -> None:
        """Replace sections of the configuration."""
        changed = {**self.endpoint.directory.now.configuration.model_dump(), **sections}
        self._revision += 1
        change = configuration_change(configured(**changed), self._revision)
        self.endpoint.directory.projection.apply_change(change)

    def headers(self, **headers: str) -> dict[str, str]:
        """Return the headers of a request."""
        own = {"authorization": f"Bearer {SECRET}", "content-type": "application/json"}
        return {**own, **{name.replace("_", "-"): value for name, value in headers.items()}}


@asynccontextmanager
async def model_edge(
    settings: Settings, *, fused: bool, **providers: Provider
) -> AsyncIterator[ModelEdge]:
    """Run the services and the HTTP listener. Without a provider, calls are echoed."""

    async def execute(call: CallAdmitted, context: CallContext) -> Reply | None:
        return await providers.get(call.server, answers(call.arguments))(
            ProviderCall(call, context)
        )

    own = IngressSettings(
        state_dir=settings.state_dir,
        nats_url=settings.nats_url,
        largest_body=LARGEST_BODY,
        browser_origins=ORIGIN,
    )
    made = chain(settings, execute, fused=fused)
    sealer = ClaimSealer(b"k" * 32)
    endpoint = endpoint_of(made.ingress, own, sealer)
    app = application(endpoint, sealer, own)
    async with running(made.executor, made.policy, made.ingress):
        endpoint.directory.projection.apply_change(configuration_change(_configuration()))
        async with serving(app, "agents", "127.0.0.1", 0, limits_of(own), 5.0) as listener:
            url = f"http://127.0.0.1:{listener.port}"
            async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE) as client:
                edge = ModelEdge(app, endpoint, made, client, providers)
                await made.executor.bus.subscribe(
                    f"{CallCancelled.SUBJECT}.*",
                    lambda data, *_: edge.cancelled.append(CallCancelled.decode(data).call_id),
                )
                await made.executor.bus.settled()
                yield edge


OpenEdge = Callable[..., AbstractAsyncContextManager[ModelEdge]]


def _configuration() -> Any:
    def key(secret: str, *models: str) -> dict[str, Any]:
        return {"secret_hash": hash_of(key_digest_of(secret)), "models": models}

    return configured(
        **DECLARED,
        keys={"bot": key(SECRET, "fast", "local/*"), "narrow": key(NARROW, "claude/*")},
    )
