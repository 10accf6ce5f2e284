"""Several executors of one configuration on one bus, and callers of different principals."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

from harness.clients.bus_operator import servers_of
from harness.engines.engine import Engine
from harness.waits import until_async
from toolbus_common.access.principal import principal_of
from toolbus_common.access.session_owner import principal_id_of
from toolbus_common.config import Configuration, Key, Server
from toolbus_common.contracts import (
    CallAdmitted,
    CallError,
    CallRequested,
    ProtocolFamily,
    SessionsQuery,
    SessionsReply,
)
from toolbus_common.contracts.replies import CallContext, Reply
from toolbus_common.errors import ExecutorDownError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.permissions import OPERATOR
from toolbus_common.nats.topology import CONFIG
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings
from toolbus_executor.main import build

UPSTREAMS = Path(__file__).parents[1] / "upstreams"
SERVER = UPSTREAMS / "stateful_server.py"
SDK_COMMAND = (sys.executable, str(SERVER), "stdio")
COMMAND = (sys.executable, str(UPSTREAMS / "stdio_server.py"))  # starts in a tenth of the time


class Stateful(Engine):
    """The stateful server as a process."""

    def __init__(self, directory: Path, kind: str) -> None:
        super().__init__(directory)
        self._kind = kind

    @property
    def url(self) -> str:
        """The URL of its endpoint."""
        return f"http://127.0.0.1:{self.port}/{'sse' if self._kind == 'sse' else 'mcp'}"

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, str(SERVER), self._kind, str(self.port)]


class ExecutorPair:
    """Callers on the bus and a policy that admits every call in the caller's name."""

    def __init__(self, settings: Settings, operator: Bus, executors: int) -> None:
        self.executors = [build(ProcessContext()) for _ in range(executors)]
        self.ingress, self.policy = Service("ingress", settings), Service("policy", settings)
        self._stacks: dict[int, AsyncExitStack] = {}
        self._operator = operator
        self.secrets: dict[str, str] = {}  # secret hashes of keys that were replaced

        @self.policy.serve_calls(CallRequested)
        async def admit(call: CallRequested, context: CallContext) -> Reply | None:
            given = {name: getattr(call, name) for name in CallRequested.model_fields}
            unavailable = CallError(ExecutorDownError("No executor is there."))
            return await self.policy.calls.hand_over(
                self._admitted(given, call.key_digest),
                context,
                lambda: context.send(unavailable),
            )

    def _admitted(self, given: dict[str, Any], key: str) -> CallAdmitted:
        fields = {
            "customer": "acme",
            "key": key,
            "key_digest": "",
            "principal_id": self.principal_id(key),
        }
        return CallAdmitted(**given | fields)

    def principal_id(self, key: str) -> str:
        """Return the principal id that policy gives a key."""
        own = Key(tools=("*",), secret_hash=self.secrets.get(key, ""))
        return principal_id_of(principal_of(key, own, Configuration()))

    async def declare(self, **servers: Server) -> None:
        """Apply a configuration with these servers."""
        config = await self._operator.bucket(CONFIG)
        whole = Configuration(servers=servers)
        await config.put("configuration", whole.model_dump_json().encode())

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ExecutorPair"]:
        """Run all services for the length of the block."""
        async with AsyncExitStack() as stack:
            for number, service in enumerate(self.executors):
                own = self._stacks[number] = await stack.enter_async_context(AsyncExitStack())
                await own.enter_async_context(service.running())
            for service in (self.policy, self.ingress):
                await stack.enter_async_context(service.running())
            yield self

    async def stop(self, number: int) -> None:
        """Stop an executor."""
        await self._stacks[number].aclose()

    async def end(self, key: str, tool: str, server: str = "s", **more: Any) -> Any:
        """Make a call and return its final reply."""
        call_id = self.ingress.calls.new_call_id()
        arguments = more.pop("arguments", {})
        fields: dict[str, Any] = {
            "server": server,
            "tool": tool,
            "key_digest": key,
            "family": ProtocolFamily.MODERN,
            "deadline": time() + 60,
            "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        }
        return await self.ingress.calls.request(
            CallRequested(
                **fields | more,
                call_id=call_id,
                reply_to=self.ingress.calls.address(call_id),
                arguments=json.dumps(arguments).encode(),
            )
        )

    async def say(self, key: str, tool: str, server: str = "s", **more: Any) -> str:
        """Make a call and return the text of its result."""
        final = await self.end(key, tool, server, **more)
        return str(json.loads(final.body)["content"][0]["text"])

    async def listed(self, server: str = "s") -> None:
        """Wait until the server is ready at an executor."""

        async def there() -> bool:
            rows = await self.rows()
            return any(row["name"] == server and row["state"] == "ready" for row in rows)

        await until_async(there, f"{server} at work")

    async def rows(self) -> tuple[dict[str, Any], ...]:
        """Return the servers that an executor reports; empty while none answers."""
        return await servers_of(self._operator)

    async def holders(self) -> dict[str, str]:
        """Return the executor that holds the session of each owner at the server `s`."""
        reply = await RequestReply(OPERATOR, self._operator).request_each(
            SessionsQuery(), SessionsReply
        )
        return {
            each["owner"]: answer.instance
            for answer in reply
            if "s" in answer.servers
            for each in answer.servers["s"]["sessions"]
        }
