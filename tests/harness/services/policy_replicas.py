"""Policy replicas on a real bus, an executor that records its calls, and an agent."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest
from nats.js.errors import NotFoundError

from harness.audit.events import bus_of
from harness.clients.bus_operator import key
from harness.waits import PATIENCE, until, until_async
from toolbus_common.access.config_snapshot import key_digest_of
from toolbus_common.config import Configuration, Server
from toolbus_common.contracts import (
    ApprovalsQuery,
    ApprovalsReply,
    ApprovalState,
    ApproveRequest,
    CallAdmitted,
    CallRequested,
    CallResult,
    CatalogEntry,
    FinalReply,
    Listing,
    ProtocolFamily,
    RejectRequest,
    ServerState,
)
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import ApprovalRequiredError, ToolbusError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.sealed_records import Records
from toolbus_common.nats.topology import CATALOGUE, CONFIG, CONFIGURATION, EVENTS
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_policy.main import build

SECRET = "tbk_bot_a-secret-of-one-who-asks"
BOSS, CHIEF, OWN, FOREIGN = (
    f"tbk_{name}_a-secret-of-{name}" for name in ("boss", "chief", "own", "foreign")
)
PAGES = '{"elicitation":{"url":{}}}'


def declared(**changes: Any) -> Configuration:
    """Return a configuration with every key; `changes` are to the caller's key."""
    bot = {"approve": ["docs__burn"], "user": "ann", "team": "ops", "rights": ["approve"]}
    return Configuration(
        servers={"docs": Server(url="http://127.0.0.1:9/mcp")},
        customers={"acme": {}, "globex": {}},
        teams={"ops": {"customer": "acme"}},
        users={"ann": {"customer": "acme"}, "eve": {"customer": "globex"}},
        keys={
            "bot": key(SECRET, **{**bot, **changes}),
            "boss": key(BOSS, rights=["approve"]),
            "chief": key(CHIEF, team="ops", rights=["approve"]),
            "own": key(OWN, user="ann", rights=["approve"]),
            "foreign": key(FOREIGN, user="eve", rights=["approve"]),
        },
    )


class PolicyReplicas:
    """Policy as an agent and an operator see it."""

    def __init__(self, settings: Settings, operator: Bus, executor: Bus) -> None:
        self.ingress = Service("ingress", settings)
        self.executor = Service("executor", settings)
        self.reached: list[CallAdmitted] = []
        self.ends: Callable[[CallAdmitted, CallContext], Awaitable[Reply | None]] = _answer
        self.asks = RequestReply(OPERATOR, operator)
        self.policies: list[Service] = []
        self._operator = operator
        self._executor = executor

        self.answer: Reply | None = None  # replaces the echoed arguments
        self.before_answer: asyncio.Event | None = None
        self.executor.serve_calls(CallAdmitted)(self.run)

    async def run(self, call: CallAdmitted, context: CallContext) -> Reply | None:
        """Handle an admitted call like executor."""
        self.reached.append(call)
        if self.before_answer is not None:
            await self.before_answer.wait()
        if self.answer is not None:
            return self.answer
        return await self.ends(call, context)

    async def declare(self, configuration: Configuration) -> None:
        """Apply a configuration at every replica."""
        bucket = await self._operator.bucket(CONFIG)
        revision = await bucket.put(CONFIGURATION, configuration.model_dump_json().encode())
        await self._applied(CONFIG, revision)

    async def offer(self, description: str = "", *tools: str) -> None:
        """Publish the server's tools with this description."""
        definition = {"description": description, "inputSchema": {"type": "object"}}
        listing = Listing(
            server="docs",
            state=ServerState.READY,
            tools=tuple(
                CatalogEntry(name=name, definition={"name": name, **definition})
                for name in tools or ("burn", "read")
            ),
        )
        bucket = await self._executor.bucket(CATALOGUE)
        await self._applied(CATALOGUE, await bucket.put("docs", listing.encode()))

    async def _applied(self, bucket: str, revision: int) -> None:
        """Return once every replica has the revision: the bus chooses the next one."""
        await until(
            lambda: all(
                each.status().revisions.get(bucket, 0) >= revision for each in self.policies
            ),
            "every policy has the revision",
        )

    def call(self, tool: str = "burn", **given: Any) -> CallRequested:
        """Return a call request."""
        call_id = self.ingress.calls.new_call_id()
        arguments = given.pop("arguments", {"page": 7})
        return CallRequested(
            **{
                "call_id": call_id,
                "reply_to": self.ingress.calls.address(call_id),
                "server": "docs",
                "tool": tool,
                "key_digest": key_digest_of(given.pop("secret", SECRET)),
                "family": ProtocolFamily.MODERN,
                "deadline": time.time() + given.pop("seconds", 30),
                "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
                "arguments": json.dumps(arguments).encode(),
                **given,
            }
        )

    async def request(self, tool: str = "burn", **given: Any) -> FinalReply:
        """Make a call."""
        return await self.ingress.calls.request(self.call(tool, **given))

    def records(self, bucket: str) -> Records:
        """Return the decryption of policy's records in a bucket."""
        return Records.at(bucket, self.ingress.settings.state_dir / "policy.key")

    async def kept(self, bucket: str) -> list[bytes]:
        """Return policy's records in a bucket, decrypted."""
        records, found = self.records(bucket), await self._operator.bucket(bucket)
        present = await found.present()
        return [records.open(each.key, each.value) for each in present if each.value]

    async def refuses(self, why: type[ToolbusError], tool: str = "burn", **given: Any) -> bool:
        """Return whether a call is denied with this error."""
        try:
            await self.request(tool, **given)
        except ToolbusError as error:
            return isinstance(error, why)
        return False

    async def waiting(self) -> tuple[ApprovalState, ...]:
        """Return pending approvals as an operator sees them."""
        return (await self.asks.request(ApprovalsQuery(), ApprovalsReply, PATIENCE)).approvals

    async def the_one(self) -> ApprovalState:
        """Return the only pending approval, once a replica lists it."""
        (result,) = await until_async(self.waiting, "what waits")
        return cast("ApprovalState", result)

    async def approve(self, approval: str) -> ApprovalsReply:
        """Approve as an operator."""
        request = ApproveRequest(id=approval, by="ann")
        return await self.asks.request(request, ApprovalsReply, PATIENCE)

    async def reject(self, approval: str, note: str) -> ApprovalsReply:
        """Reject as an operator."""
        request = RejectRequest(id=approval, by="ann", note=note)
        return await self.asks.request(request, ApprovalsReply, PATIENCE)


async def _answer(call: CallAdmitted, _context: CallContext) -> Reply:
    return CallResult(call.arguments)


@asynccontextmanager
async def running_policy(
    settings: Settings, operator: Bus, configuration: Configuration, replicas: int = 2
) -> AsyncIterator[PolicyReplicas]:
    """Run policy; the environment must name the bus and Valkey."""
    async with bus_of("executor", settings) as executor, AsyncExitStack() as stack:
        made = PolicyReplicas(settings, operator, executor)
        await made.declare(configuration)
        await made.offer()
        policies = [build(ProcessContext()) for _ in range(replicas)]
        for service in (made.executor, *policies, made.ingress):
            await stack.enter_async_context(service.running())
        made.policies = policies
        yield made


async def required(made: PolicyReplicas, **given: Any) -> str:
    """Return the approval that a call requires."""
    with pytest.raises(ApprovalRequiredError) as caught:
        await made.request(**given)
    return str(caught.value.data["approval"])


async def last_event(operator: Bus, event: str) -> bytes:
    """Return the last event of this name of the customer; empty if there is none."""
    subject = f"tb.event.{event}.acme"
    try:
        return (await operator.client.jetstream().get_last_msg(EVENTS, subject)).data or b""
    except NotFoundError:
        return b""
