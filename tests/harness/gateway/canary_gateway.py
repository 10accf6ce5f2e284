"""Gateway with a canary in every place that stores a secret: servers, keys, people, receivers."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.engines.engine import own_port
from harness.gateway.cluster import Process
from harness.gateway.launched_gateway import Launched
from harness.oauth import openid_provider
from harness.oauth.openid_process import Provider
from harness.oauth.protected_processes import OAuthServer, ProtectedServer
from harness.receivers.otlp_collector import Collector
from harness.receivers.webhook_receiver import Receiver, webhook_secret
from harness.samples.canaries import canary, card
from harness.upstreams.leaking_server import LeakingServer
from toolbus_common.contracts import IdentityReply, IdentityRequest
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR

KEPT = ("header by file", "client of servers", "webhook by file")
BY_ENVIRONMENT = ("header by variable", "issuer", "process by variable")
INLINE = (  # in the configuration, so NATS stores them encrypted
    "header", "variable", "process", "webhook", "sink", "credential", "bucket",
)  # fmt: skip
NO_LISTENER = "http://127.0.0.1:9"
KEYS = ("ann", "bot", "eve", "reader", "operator")
NAMED = (
    "page", "words", "last words", "collector", "password", "wrong password", "wrong code",
    "argument", "waiting",
)  # fmt: skip
FRAIL = Path(__file__).parents[1] / "upstreams" / "crashing_server.py"
FUNCTION = """
import os
from hashlib import sha256

def digest() -> str:
    '''Return a digest of its variables.'''
    return sha256("".join(os.environ[name] for name in ("INLINE", "KEPT")).encode()).hexdigest()
"""


@dataclass
class CanaryGateway:
    """The running processes, and all secrets by their kind."""

    launched: Launched
    secrets: dict[str, str]
    blabbing: LeakingServer
    far: OAuthServer
    docs: ProtectedServer
    provider: Provider
    collector: Collector
    receiver: Receiver
    reading: int = field(default_factory=own_port)  # the port of audit's BI gateway

    @property
    def base(self) -> str:
        """The origin of the gateway."""
        return str(self.launched.ready["endpoint"]).removesuffix("/mcp")

    @property
    def exports(self) -> Path:
        """The directory of the scheduled exports."""
        return self.launched.directory / "exports"

    def doom(self, *words: str) -> None:
        """Make the crashing server exit at startup. It prints these words to standard error."""
        (self.launched.directory / "doomed").write_text("\n".join(words))

    def kept(self, name: str) -> str:
        """Write a secret to a file, and return the reference to the secret."""
        path = self.launched.directory / name.replace(" ", "-")
        path.write_text(self.secrets[name])
        return f"${{file:{path}}}"

    def action(self, action: str, name: str, **about: Any) -> dict[str, Any]:
        """Send an operator's action to oauth."""

        async def send(bus: Bus) -> IdentityReply:
            request = IdentityRequest(action=action, name=name, by="op", about=json.dumps(about))
            return await RequestReply(OPERATOR, bus).request(request, IdentityReply, 60.0)

        return dict(self.launched.on_the_bus(send).rows[0])

    def leaking(self, log: Path) -> tuple[Process, int, int]:
        """Run another ingress, which leaks.

        Return its process and its ports; the first is for agents.
        """
        port, ops = own_port(), own_port()
        fields = {
            "STATE_DIR": str(self.launched.state_dir),
            "NATS_URL": self.launched.nats_url,
            "HTTP_PORT": str(port),
            "OPS_LISTEN": f"127.0.0.1:{ops}",
        }
        environment = {f"TOOLBUS_{name}": value for name, value in fields.items()}
        kept = self.launched.environment
        return Process(["ingress"], {**kept, **environment}, log, "leaking_ingress.py"), port, ops


@contextmanager
def running_canaries(directory: Path) -> Iterator[CanaryGateway]:
    """Run the gateway and all its processes."""
    names = (*KEPT, *BY_ENVIRONMENT, *INLINE, *NAMED)
    secrets = {name: canary(name.replace(" ", "-")) for name in names}
    secrets |= {name: f"tbk_{name}_{canary(name)}" for name in KEYS}
    secrets |= {name: webhook_secret(secrets[name]) for name in ("webhook", "webhook by file")}
    secrets["issuer"] = openid_provider.SECRET
    secrets["card"] = card()
    with ExitStack() as stack:
        far = OAuthServer(directory / "far")
        docs = ProtectedServer(directory / "docs", far.issuer, "read")
        provider = Provider(directory / "provider")
        blabbing = stack.enter_context(
            LeakingServer(secrets["page"], secrets["words"], secrets["last words"]).serving()
        )
        collector, receiver = stack.enter_context(Collector()), stack.enter_context(Receiver())
        for engine in (far, docs, provider):
            stack.callback(engine.kill)
            engine.start()
        made = CanaryGateway(
            Launched(directory / "gateway"), secrets, blabbing, far, docs, provider,
            collector, receiver,
        )  # fmt: skip
        made.launched.directory.mkdir()
        made.exports.mkdir()
        (made.launched.directory / "calc.py").write_text(FUNCTION)
        shutil.copy(FRAIL, made.launched.directory)
        made.launched.environment |= _environment(made)
        made.launched.configure(_configuration(made))
        stack.callback(made.launched.stop)
        made.launched.start()
        yield made


def _environment(made: CanaryGateway) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": made.collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-token={made.secrets['collector']}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "TOOLBUS_EGRESS_ALLOW": "127.0.0.0/8",
        "TOOLBUS_CHECKPOINT_SECONDS": "0.5",
        "TOOLBUS_AUDIT_HTTP_PORT": str(made.reading),
        "BY_VARIABLE": made.secrets["header by variable"],
        "PROCESS_SECRET": made.secrets["process by variable"],
        "CORP_SECRET": made.secrets["issuer"],
    }


def _configuration(made: CanaryGateway) -> dict[str, Any]:
    secret = made.secrets
    client = {"id": "gateway", "secret": made.kept("client of servers")}
    return {
        "servers": _servers(made, client),
        "customers": {"rival": {}},
        "users": {"ann": {}, "eve": {"customer": "rival"}},
        "keys": {
            "ann": {"secret": secret["ann"], "user": "ann", "tools": ["*"]},
            "bot": {"secret": secret["bot"], "tools": ["*"], "approve": ["blab__count"]},
            "eve": {"secret": secret["eve"], "user": "eve", "tools": ["frail__*"]},
        },
        "admins": {"op": {"role": "admin", "secret": secret["operator"]}},
        "readers": {"analyst": {"customers": ["*"], "secret": secret["reader"]}},
        "issuers": {
            "corp": {
                "url": made.provider.url, "algorithms": ["ES256"], "user": "login",
                "client_id": openid_provider.CLIENT, "secret": "${env:CORP_SECRET}",
            },
        },
        "access": {
            "staff": {"claims": {"groups": "staff"}, "tools": ["*"]},
            "corp": {"issuer": "corp", "claims": {"groups": "staff"}, "tools": ["*"]},
            "robots": {"issuer": "machines", "tools": ["blab__*"]},
        },
        "webhooks": {
            "plain": _hook(made, secret["webhook"]),
            "kept": _hook(made, made.kept("webhook by file")),
        },
        "sinks": {
            "siem": {
                "url": made.receiver.url.replace("/hook", "/sink"),
                "headers": {"Authorization": f"Splunk {secret['sink']}"}, "begin": "oldest",
            },
        },
        "exports": {
            "files": {"to": str(made.exports), "every": "1s"},
            "lake": {
                "to": "s3://lake/events", "endpoint": NO_LISTENER, "every": "1s",
                "credentials": {"access_key": "toolbus", "secret_key": secret["bucket"]},
            },
        },
    }  # fmt: skip


def _hook(made: CanaryGateway, secret: str) -> dict[str, Any]:
    return {"url": made.receiver.url, "secret": secret, "events": ["approval.*", "config.*"]}


def _servers(made: CanaryGateway, client: dict[str, str]) -> dict[str, Any]:
    secret = made.secrets
    heads = {
        "X-Inline": secret["header"],
        "X-File": made.kept("header by file"),
        "X-Variable": "${env:BY_VARIABLE}",
    }
    fields = {"INLINE": secret["variable"], "KEPT": "${env:BY_VARIABLE}"}
    cwd = str(made.launched.directory)
    machine = {"grant": "client_credentials", "clients": {made.far.issuer: client}}
    return {
        "blab": {"url": made.blabbing.url, "headers": heads},
        "calc": {"python": ["calc:digest"], "cwd": cwd, "env": fields},
        "frail": {
            "protocol": "legacy",  # one process each, in one family
            "command": [sys.executable, f"{cwd}/{FRAIL.name}"], "cwd": cwd,
            "env": {"INLINE": secret["process"], "GIVEN": "${env:PROCESS_SECRET}"},
            "sessions": "shared",  # its end affects two customers
        },
        "sulking": {"url": made.blabbing.refusing_url, "headers": heads},
        "api": {"openapi": f"{NO_LISTENER}/api.json", "credentials": {"key": secret["credential"]}},
        "docs": {"url": made.docs.url, "oauth": {"tokens": "user"}},
        "jobs": {"url": made.docs.url, "oauth": machine},
    }  # fmt: skip
