"""Gateway with separate services, mock providers, and two real llama.cpp servers."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.models.llama_server import MODEL, LlamaServer
from harness.models.model_gateway import ModelGateway, running_models


@dataclass(frozen=True)
class LlamaGateway:
    """The gateway, and its two llama.cpp servers. The alias `team-llama` names both."""

    models: ModelGateway
    local: LlamaServer
    backup: LlamaServer


@contextmanager
def running_llamas(directory: Path, file: Path) -> Iterator[LlamaGateway]:
    """Run the gateway and all providers. `file` is the model's file."""
    with ExitStack() as stack:
        local, backup = (
            stack.enter_context(LlamaServer(directory / name, file).running())
            for name in ("local", "backup")
        )
        more = configuration(local, backup)
        gateway = stack.enter_context(running_models(directory / "gateway", fused=False, more=more))
        yield LlamaGateway(gateway, local, backup)


def configuration(local: LlamaServer, backup: LlamaServer) -> dict[str, Any]:
    """Return the providers and the alias of the llama.cpp servers."""

    def provider(kind: str, server: LlamaServer) -> dict[str, Any]:
        apis = {"apis": ["chat", "responses"]} if kind == "openai" else {"key": "unused"}
        return {"kind": kind, "url": server.url, "models": [MODEL], **apis}

    return {
        "providers": {
            "local": provider("openai", local),
            "backup": provider("openai", backup),
            "local-messages": provider("anthropic", local),
        },
        "models": {
            "team-llama": [{"provider": name, "model": MODEL} for name in ("local", "backup")]
        },
    }
