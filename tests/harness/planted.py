"""A gateway with a canary wherever a secret can be: its servers, keys, people, receivers."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import openid_provider
from harness.blabbing import Blabbing
from harness.canaries import canary, card
from harness.cluster import Process
from harness.engines import own_port
from harness.launched import Launched
from harness.otlp import Collector
from harness.protected import OAuthServer, ProtectedServer
from harness.providing import Provider
from harness.receiver import Receiver
from toolbus_common.contracts import IdentityReply, IdentityRequest
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR

KEPT = ("header by file", "client of servers", "webhook by file")
BY_ENVIRONMENT = ("header by variable", "issuer", "process by variable")
INLINE = (  # in the declaration, and so, sealed, in NATS
    "header", "variable", "process", "webhook", "sink", "credential", "bucket",
)  # fmt: skip
NOBODY = "http://127.0.0.1:9"
KEYS = ("ann", "bot", "eve", "reader", "operator")
NAMED = (
    "page", "words", "last words", "collector", "password", "wrong password", "wrong code",
    "argument", "waiting",
)  # fmt: skip
FRAIL = Path(__file__).with_name("frail_server.py")
FUNCTION = """
import os
from hashlib import sha256

def told() -> str:
    '''Tell that it has its variables.'''
    return sha256("".join(os.environ[name] for name in ("INLINE", "KEPT")).encode()).hexdigest()
"""


@dataclass
class Planted:
    """What runs, and every secret by what it is."""

    launched: Launched
    secrets: dict[str, str]
    blabbing: Blabbing
    far: OAuthServer
    docs: ProtectedServer
    provider: Provider
    collector: Collector
    receiver: Receiver
    reading: int = field(default_factory=own_port)  # where audit answers readers

    @property
    def base(self) -> str:
        """Where the gateway is."""
        return str(self.launched.ready["endpoint"]).removesuffix("/mcp")

    @property
    def exports(self) -> Path:
        """Where files are written on a schedule."""
        return self.launched.directory / "exports"

    def doom(self, *words: str) -> None:
        """Have the frail server die at its start from now on, saying this."""
        (self.launched.directory / "doomed").write_text("\n".join(words))

    def kept(self, name: str) -> str:
        """A reference to a secret that a file holds."""
        path = self.launched.directory / name.replace(" ", "-")
        path.write_text(self.secrets[name])
        return f"${{file:{path}}}"

    def action(self, action: str, name: str, **about: Any) -> dict[str, Any]:
        """What an operator wishes of oauth."""

        async def send(bus: Bus) -> IdentityReply:
            request = IdentityRequest(action=action, name=name, by="op", about=json.dumps(about))
            return await RequestReply(OPERATOR, bus).request(request, IdentityReply, 60.0)

        return dict(self.launched.on_the_bus(send).rows[0])

    def leaking(self, log: Path) -> tuple[Process, int, int]:
        """One more edge, which tells what it should not; its ports, the agents' first."""
        port, ops = own_port(), own_port()
        fields = {
            "STATE_DIR": str(self.launched.state_dir),
            "NATS_URL": self.launched.nats_url,
            "HTTP_PORT": str(port),
            "OPS_LISTEN": f"127.0.0.1:{ops}",
        }
        environment = {f"TOOLBUS_{name}": value for name, value in fields.items()}
        kept = self.launched.environment
        return Process(["ingress"], {**kept, **environment}, log, "run_leaking.py"), port, ops


@contextmanager
def planted(directory: Path) -> Iterator[Planted]:
    """All of it at work."""
    names = (*KEPT, *BY_ENVIRONMENT, *INLINE, *NAMED)
    secrets = {name: canary(name.replace(" ", "-")) for name in names}
    secrets |= {name: f"tbk_{name}_{canary(name)}" for name in KEYS}
    secrets["issuer"] = openid_provider.SECRET
    secrets["card"] = card()
    with ExitStack() as stack:
        far = OAuthServer(directory / "far")
        docs = ProtectedServer(directory / "docs", far.issuer, "read")
        provider = Provider(directory / "provider")
        blabbing = stack.enter_context(
            Blabbing(secrets["page"], secrets["words"], secrets["last words"]).serving()
        )
        collector, receiver = stack.enter_context(Collector()), stack.enter_context(Receiver())
        for engine in (far, docs, provider):
            stack.callback(engine.kill)
            engine.start()
        made = Planted(
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


def _environment(made: Planted) -> dict[str, str]:
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


def _configuration(made: Planted) -> dict[str, Any]:
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
                "to": "s3://lake/events", "endpoint": NOBODY, "every": "1s",
                "credentials": {"access_key": "toolbus", "secret_key": secret["bucket"]},
            },
        },
    }  # fmt: skip


def _hook(made: Planted, secret: str) -> dict[str, Any]:
    return {"url": made.receiver.url, "secret": secret, "events": ["approval.*", "config.*"]}


def _servers(made: Planted, client: dict[str, str]) -> dict[str, Any]:
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
        "calc": {"python": ["calc:told"], "cwd": cwd, "env": fields},
        "frail": {
            "protocol": "legacy",  # one process each, in one family
            "command": [sys.executable, f"{cwd}/{FRAIL.name}"], "cwd": cwd,
            "env": {"INLINE": secret["process"], "GIVEN": "${env:PROCESS_SECRET}"},
            "sessions": "shared",  # so that its end concerns two customers
        },
        "sulking": {"url": made.blabbing.refusing_url, "headers": heads},
        "api": {"openapi": f"{NOBODY}/api.json", "credentials": {"key": secret["credential"]}},
        "docs": {"url": made.docs.url, "oauth": {"tokens": "user"}},
        "jobs": {"url": made.docs.url, "oauth": machine},
    }  # fmt: skip
