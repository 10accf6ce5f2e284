"""The ingress service: the edge, which turns HTTP requests into calls on the bus.

subscribes  replies to its calls; events about calls while the live view is open;
            ServerNotification; SessionMessage of its other replicas;
            the buckets tb_config, tb_catalogue and tb_tokens
publishes   CallRequested, CallCancelled, SessionMessage, ClientMessage; the events
            AccessRejected and ContextListed
queries     policy (ApproverRequest, AdminRequest), oauth (PageRequest, TokenQuery, SignInLinkQuery)
            and codemode (OwnRunsRequest)
owns        its open streams, nothing else: any replica serves any request
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from toolbus_common.access.anonymous import FORCE
from toolbus_common.access.config_snapshot import ConfigProjection, ConfigView
from toolbus_common.contracts import ServerNotification, SessionMessage
from toolbus_common.crypto.dpop.replay_check import Nonces, ProofChecker
from toolbus_common.crypto.key_file import accepted_keys
from toolbus_common.http_server.acceptor import Handshake
from toolbus_common.messaging.access_rejections import RejectionCounter
from toolbus_common.nats.topology import CATALOGUE, CONFIG, TOKENS
from toolbus_common.service.process_context import ProcessContext
from toolbus_common.service.service import Service
from toolbus_ingress.app import App
from toolbus_ingress.approvals.page_handler import ApprovalPage
from toolbus_ingress.auth.anonymous import AnonymousAccess
from toolbus_ingress.auth.dpop import DPoPVerifier
from toolbus_ingress.auth.protected_resource import ProtectedResource, public_names
from toolbus_ingress.catalog.list_context import ListSizeCounter
from toolbus_ingress.catalog.model_lists import ModelLists
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.console.session import SessionCookie
from toolbus_ingress.http.request_guard import RequestGuard
from toolbus_ingress.http.server import listening
from toolbus_ingress.mcp.call_handler import CallHandler
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.mcp.legacy.client_requests import PendingClientRequests
from toolbus_ingress.mcp.local_methods import LocalMethods
from toolbus_ingress.mcp.notification_hub import NotificationHub
from toolbus_ingress.mcp.resume import Resumption
from toolbus_ingress.mcp.server_requests import ServerRequests
from toolbus_ingress.sampling.sampler import Samplers
from toolbus_ingress.sessions.event_log_store import EventLogStore
from toolbus_ingress.sessions.sealed_claims import ClaimSealer
from toolbus_ingress.sessions.session_store import Session, Sessions
from toolbus_ingress.sessions.suggestions import SuggestionLinks
from toolbus_ingress.settings import Settings

log = logging.getLogger(__name__)

CERTIFICATE = "certificate"  # in the status: what is wrong with the certificate


def build(process: ProcessContext) -> Service:
    """Compose the service. Nothing connects until it runs."""
    settings = Settings()
    service = Service("ingress", settings, process)
    keys = accepted_keys(settings.client_state_key)
    service.shared_keys.add("client_state", *keys)
    sealer = ClaimSealer(*keys)
    endpoint = endpoint_of(service, settings, sealer)
    handshake = settings.handshake()
    _report(service, endpoint.anonymous, handshake)
    app = application(endpoint, sealer, settings)
    service.add_resource(lambda: _serve_clients(endpoint, app, settings, handshake))
    return service


def application(endpoint: Endpoint, sealer: ClaimSealer, settings: Settings) -> App:
    """Compose the application around an endpoint."""
    service = endpoint.service
    rejections = RejectionCounter(service.events.publish, settings.rejection_seconds)
    service.add_resource(rejections.publisher.running)
    service.draining.append(rejections.publisher.flush)
    browser_origins = _names(settings.browser_origins)
    cookie = SessionCookie(sealer, secure=settings.public_url.startswith("https://"))
    return App(endpoint, ApprovalPage(endpoint, sealer), rejections, cookie, browser_origins)


def endpoint_of(service: Service, settings: Settings, sealer: ClaimSealer) -> Endpoint:
    """Compose the MCP endpoint and connect its parts."""
    directory = ConfigView(service.share_projection(CONFIG, ConfigProjection))
    catalogue = Catalogue(directory)
    model_lists = ModelLists(catalogue.apply)
    service.watch_bucket(CATALOGUE)(model_lists.apply)
    service.watch_bucket(TOKENS)(directory.bearers.apply_change)

    client_requests, event_logs = PendingClientRequests(), EventLogStore(settings.poll_after)
    call_handler = CallHandler(
        service,
        catalogue,
        sealer,
        client_requests,
        event_logs,
        Samplers(service, directory),
        settings.call_timeout,
    )
    notifications = NotificationHub(catalogue, call_handler, event_logs)
    sessions = _sessions(service, sealer, client_requests, call_handler)
    list_sizes = ListSizeCounter(
        service.events.publish, catalogue, directory, settings.context_seconds
    )
    service.add_resource(list_sizes.publisher.running)
    service.draining.append(list_sizes.publisher.flush)

    directory.projection.on_key.append(notifications.key_changed)
    directory.bearers.on_gone = notifications.key_changed
    call_handler.on_task_created = sessions.add_task
    sessions.on_message = notifications.deliver
    _connect_server_requests(
        ServerRequests(service, client_requests, notifications), notifications, sessions
    )

    nonces = Nonces(sealer) if settings.dpop_nonce else None
    dpop = DPoPVerifier(settings.public_url.rstrip("/"), ProofChecker(nonces))
    return Endpoint(
        service=service,
        guard=_guard(settings),
        directory=directory,
        catalogue=catalogue,
        model_lists=model_lists,
        sessions=sessions,
        call_handler=call_handler,
        local_methods=LocalMethods(catalogue, sessions, call_handler, list_sizes),
        notifications=notifications,
        resumption=Resumption(service.bus, event_logs),
        event_logs=event_logs,
        anonymous=AnonymousAccess.of(directory, settings, _names(settings.browser_origins)),
        protected_resource=ProtectedResource(directory, service.requests, dpop),
        suggestions=SuggestionLinks(sealer),
        largest_body=settings.largest_body,
        max_in_flight=settings.max_in_flight,
    )


def _report(service: Service, anonymous: AnonymousAccess, handshake: Handshake) -> None:
    """Show anonymous access and the certificate in the status.

    Anonymous access that is configured but denied is logged as an error.
    """

    def check() -> None:
        if anonymous.denied_reason:
            log.error(
                "anonymous.denied", extra={"reason": anonymous.denied_reason, "accept": FORCE}
            )

    anonymous.directory.projection.on_configured.append(check)
    service.details = lambda: {
        name: text
        for name, text in (
            ("anonymous", anonymous.state),
            (CERTIFICATE, handshake.certificate.problem() if handshake.certificate else ""),
        )
        if text
    }


def _connect_server_requests(
    server_requests: ServerRequests, notifications: NotificationHub, sessions: Sessions
) -> None:
    """Connect the forwarding of server requests and client messages that belong to no call."""

    def ended(sid: str) -> None:
        notifications.session_ended(sid)
        server_requests.end_session(sid)

    notifications.on_server_request, sessions.on_ended = server_requests.forward, ended
    sessions.on_roots_changed = lambda sid: server_requests.publish(sid, "roots")


@asynccontextmanager
async def _serve_clients(
    endpoint: Endpoint, app: App, settings: Settings, handshake: Handshake
) -> AsyncIterator[None]:
    """Subscribe to the bus, then listen for HTTP until the service stops."""
    bus, notifications, sessions = (
        endpoint.service.bus, endpoint.notifications, endpoint.sessions,
    )  # fmt: skip
    await bus.subscribe(
        f"{ServerNotification.SUBJECT}.*",
        lambda data, *_: notifications.receive(ServerNotification.decode(data)),
    )
    await bus.subscribe(
        f"{SessionMessage.SUBJECT}.*",
        lambda data, *_: sessions.receive(SessionMessage.decode(data)),
    )
    await endpoint.resumption.open()
    async with listening(app, settings, handshake) as listener:

        async def leave() -> None:
            await listener.stop_accepting()
            app.live.close()
            notifications.close()  # an open stream would prevent the end of the listener
            await listener.end(settings.drain_seconds)

        endpoint.service.announcing.append(listener.announce_end)
        endpoint.service.on_leave(leave)
        try:
            yield
        finally:
            notifications.close()
            endpoint.resumption.close()


def _sessions(
    service: Service,
    sealer: ClaimSealer,
    client_requests: PendingClientRequests,
    call_handler: CallHandler,
) -> Sessions:
    def publish(message: SessionMessage) -> None:
        service.spawn(service.bus.publish(message.subject, message.encode()))

    def cancel(session: Session, request_id: bytes) -> None:
        call_id = session.in_flight.get(request_id)
        if call_id is not None:
            service.spawn(call_handler.cancel(call_id))
            client_requests.cancel(session.sid, request_id)

    sessions = Sessions(sealer, publish)
    sessions.on_response = client_requests.resolve
    sessions.on_cancelled = cancel
    return sessions


def _guard(settings: Settings) -> RequestGuard:
    hosts, origins = public_names(settings.public_url)
    origins |= _names(settings.allowed_origins) | _names(settings.browser_origins)
    return RequestGuard(_names(settings.allowed_hosts) | hosts, origins)


def _names(listed: str) -> frozenset[str]:
    """Return the lower-case entries of a comma-separated setting."""
    return frozenset(name.strip().lower() for name in listed.split(",") if name.strip())
