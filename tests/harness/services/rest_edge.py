"""REST APIs of ingress without a bus. A double of policy records its queries."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from harness.builders.configurations import configuration_change, configured
from toolbus_common.access.config_snapshot import ConfigView, hash_of, key_digest_of
from toolbus_common.contracts import AdminReply, AdminRequest, ApprovalsReply, ApproverRequest
from toolbus_ingress.auth.dpop import DPoPVerifier
from toolbus_ingress.auth.protected_resource import ProtectedResource
from toolbus_ingress.console.session import SessionCookie
from toolbus_ingress.http.jsonrpc import Response
from toolbus_ingress.http.request_guard import RequestGuard
from toolbus_ingress.live.feed import LiveFeed
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.rest_apis import RestApis
from toolbus_ingress.sessions.sealed_claims import ClaimSealer

LARGEST_BODY = 8192
SECRETS = {role: f"tba_{role}_a-secret-of-the-rest-edge" for role in ("admin", "viewer")}


@dataclass
class PolicyDouble:
    """Double of policy that records queries. It returns or raises `reply`."""

    reply: Any = field(default_factory=lambda: AdminReply(revision=7, body=b'{"done":true}'))
    queries: list[AdminRequest | ApproverRequest] = field(default_factory=list)

    async def request(self, query: Any, answer: Any, seconds: float = 5.0) -> Any:  # noqa: ARG002
        """Return the reply to a query."""
        self.queries.append(query)
        if isinstance(self.reply, Exception):
            raise self.reply
        return ApprovalsReply() if answer is ApprovalsReply else self.reply


class RestEdge:
    """Requests to the REST APIs.

    `policy` receives their queries; `reads` counts parts of bodies.
    """

    def __init__(self) -> None:
        self.policy, self.reads = PolicyDouble(), 0
        admins = {
            role: {"role": role, "secret_hash": hash_of(key_digest_of(secret))}
            for role, secret in SECRETS.items()
        }
        directory = ConfigView()
        directory.projection.apply_change(configuration_change(configured(admins=admins)))
        directory.projection.apply_change(None)
        bus = SimpleNamespace(connected=True)
        absent = cast("Any", None)
        self.endpoint = Endpoint(
            service=cast("Any", SimpleNamespace(bus=bus, requests=self.policy)),
            guard=RequestGuard(frozenset({"localhost"}), frozenset()),
            directory=directory,
            catalogue=absent, model_lists=absent, sessions=absent, call_handler=absent,
            local_methods=absent, notifications=absent, resumption=absent, event_logs=absent,
            anonymous=absent, suggestions=absent,
            protected_resource=ProtectedResource(directory, absent, DPoPVerifier("")),
            largest_body=LARGEST_BODY, max_in_flight=8,
        )  # fmt: skip
        cookie = SessionCookie(ClaimSealer(bytes(32)), secure=False)
        self.apis = RestApis(self.endpoint, cookie, LiveFeed(cast("Any", bus)))

    def reset(self) -> None:
        """Forget all requests, and reply to queries as at first."""
        self.policy.reply, self.reads = PolicyDouble().reply, 0
        self.policy.queries.clear()

    async def request(
        self, method: str, target: str, body: bytes = b"", role: str = "admin", **headers: str
    ) -> Response:
        """Return the response. Without a role, the request contains no credential."""
        path, _, query = target.partition("?")
        fields = {"host": "localhost"}
        if role:
            fields["authorization"] = f"Bearer {SECRETS.get(role, role)}"
        if body:
            fields |= {"content-type": "application/json", "content-length": str(len(body))}
        fields |= {name.replace("_", "-").lower(): value for name, value in headers.items()}
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path,
            "query_string": query.encode("latin-1"), "root_path": "", "scheme": "http",
            "headers": [(n.encode(), value.encode("latin-1")) for n, value in fields.items()],
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            self.reads += 1
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(_message: Any) -> None:
            raise AssertionError("The response is returned, not sent.")

        response = await self.apis.answer(scope, receive, send)
        assert response is not None
        return response
