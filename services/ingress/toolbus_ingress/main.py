"""The ingress service: the edge, where HTTP becomes calls on the bus and back.

hears   the frames of its calls; ServerNotification; SessionMessage of its other replicas; the
        buckets tb_config, tb_catalogue and tb_tokens
says    CallRequested, CallCancelled, SessionMessage, ClientMessage; the events AccessRejected and
        ContextListed
asks    ApproverAsked and AdminAsked, of policy; PageAsked and TokenShown, of oauth
owns    nothing but the streams open to it: any replica serves any request
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from toolbus_common.access.anonymous import FORCE
from toolbus_common.access.config_snapshot import ConfigProjection
from toolbus_common.contracts import ServerNotification, SessionMessage
from toolbus_common.crypto.dpop.replay_check import Nonces, ProofChecker
from toolbus_common.crypto.key_file import load_key
from toolbus_common.messaging.access_rejections import RejectionCounter
from toolbus_common.messaging.local_transport import LocalTransport
from toolbus_common.nats.topology import CATALOGUE, CONFIG, TOKENS
from toolbus_common.service.service import Service
from toolbus_ingress.app import App
from toolbus_ingress.approvals.handler import Approvals
from toolbus_ingress.auth.anonymous import AnonymousAccess
from toolbus_ingress.auth.dpop import Possession
from toolbus_ingress.auth.protected_resource import Identity, own_names
from toolbus_ingress.catalog.list_context import ListedContext
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.http.request_guard import Guard
from toolbus_ingress.http.server import listening
from toolbus_ingress.mcp.call_handler import Relay
from toolbus_ingress.mcp.endpoint import Endpoint
from toolbus_ingress.mcp.legacy.client_requests import Questions
from toolbus_ingress.mcp.local_methods import Local
from toolbus_ingress.mcp.notification_hub import Hub
from toolbus_ingress.mcp.resume import Resumption
from toolbus_ingress.mcp.server_requests import OutsideRequests
from toolbus_ingress.sessions.event_log_store import Shelf
from toolbus_ingress.sessions.sealed_claims import Seal
from toolbus_ingress.sessions.session_store import Session, Sessions
from toolbus_ingress.settings import Settings

log = logging.getLogger(__name__)


def build(exchange: LocalTransport) -> Service:
    """Wire the service. Nothing connects until it runs."""
    settings = Settings()
    service = Service("ingress", settings, exchange)
    seal = Seal(load_key(settings.seal_key))
    endpoint = _endpoint(service, settings, seal)
    scripts = _names(settings.browser_origins)
    rejections = RejectionCounter(service.events.publish, settings.rejection_seconds)
    service.add_resource(rejections.publisher.running)
    _tell_of_anonymous(service, endpoint.anonymous)
    service.draining.append(rejections.publisher.flush)
    app = App(endpoint, Approvals(endpoint, seal), rejections, scripts)
    service.add_resource(lambda: _open_to_clients(endpoint, app, settings))
    return service


def _endpoint(service: Service, settings: Settings, seal: Seal) -> Endpoint:
    directory, catalogue = _watched(service)
    questions, shelf = Questions(), Shelf(settings.poll_after)
    relay = Relay(service, catalogue, seal, questions, shelf, settings.call_timeout)
    hub, sessions = Hub(catalogue, relay, shelf), _sessions(service, seal, questions, relay)
    context = ListedContext(service.events.publish, catalogue, directory, settings.context_seconds)
    service.add_resource(context.publisher.running)
    service.draining.append(context.publisher.flush)
    _introduce(directory, relay, hub, sessions)
    _connect_outside(OutsideRequests(service, questions, hub), hub, sessions)
    return Endpoint(
        service=service,
        guard=_guard(settings),
        directory=directory,
        catalogue=catalogue,
        sessions=sessions,
        relay=relay,
        local=Local(catalogue, sessions, relay, context),
        hub=hub,
        resumption=Resumption(service.bus, shelf),
        shelf=shelf,
        anonymous=AnonymousAccess.of(directory, settings, _names(settings.browser_origins)),
        identity=Identity(directory, service.requests, _possession(settings, seal)),
        largest_body=settings.largest_body,
        most_in_flight=settings.most_in_flight,
    )


def _tell_of_anonymous(service: Service, anonymous: AnonymousAccess) -> None:
    """Show who is served without a credential, and log where that is declared and refused."""

    def look() -> None:
        if anonymous.refused:
            log.error("anonymous.refused", extra={"reason": anonymous.refused, "accept": FORCE})

    anonymous.directory.on_declared.append(look)
    service.details = lambda: {"anonymous": anonymous.state} if anonymous.state else {}


def _introduce(directory: ConfigProjection, relay: Relay, hub: Hub, sessions: Sessions) -> None:
    """Have who knows of something tell whom it concerns."""
    directory.on_key.append(hub.hear_key)
    directory.bearers.on_gone = hub.hear_key
    relay.on_begun = sessions.begun
    sessions.on_message = hub.bring


def _connect_outside(outside: OutsideRequests, hub: Hub, sessions: Sessions) -> None:
    """Pass on what servers ask, and what clients say, outside any call."""

    def ended(sid: str) -> None:
        hub.leave(sid)
        outside.end(sid)

    hub.on_asked, sessions.on_ended = outside.hear, ended
    sessions.on_roots = lambda sid: outside.tell(sid, "roots")


@asynccontextmanager
async def _open_to_clients(endpoint: Endpoint, app: App, settings: Settings) -> AsyncIterator[None]:
    bus, hub, sessions = endpoint.service.bus, endpoint.hub, endpoint.sessions
    await bus.subscribe(
        f"{ServerNotification.SUBJECT}.*",
        lambda data, *_: hub.hear(ServerNotification.decode(data)),
    )
    await bus.subscribe(
        f"{SessionMessage.SUBJECT}.*", lambda data, *_: sessions.hear(SessionMessage.decode(data))
    )
    await endpoint.resumption.open()
    async with listening(app, settings) as listener:

        async def leave() -> None:
            await listener.stop_accepting(settings.leave_seconds)
            hub.close()  # a stream would else keep the listener from ending
            await listener.end(settings.drain_seconds)

        endpoint.service.on_leave(leave)
        try:
            yield
        finally:
            hub.close()
            endpoint.resumption.close()


def _possession(settings: Settings, seal: Seal) -> Possession:
    nonces = Nonces(seal) if settings.dpop_nonce else None
    return Possession(settings.public_url.rstrip("/"), ProofChecker(nonces))


def _watched(service: Service) -> tuple[ConfigProjection, Catalogue]:
    """What is declared, and what servers offer."""
    directory = ConfigProjection()
    catalogue = Catalogue(directory)
    service.watch_bucket(CONFIG)(directory.hear)
    service.watch_bucket(CATALOGUE)(catalogue.hear)
    service.watch_bucket(TOKENS)(directory.bearers.hear)
    return directory, catalogue


def _sessions(service: Service, seal: Seal, questions: Questions, relay: Relay) -> Sessions:
    def say(said: SessionMessage) -> None:
        service.spawn(service.bus.publish(said.subject, said.encode()))

    def cancel(session: Session, request_id: bytes) -> None:
        call_id = session.in_flight.get(request_id)
        if call_id is not None:
            service.spawn(relay.cancel(call_id))
            questions.give_up(session.sid, request_id)

    sessions = Sessions(seal, say)
    sessions.on_response = questions.heard
    sessions.on_cancelled = cancel
    return sessions


def _guard(settings: Settings) -> Guard:
    hosts, origins = own_names(settings.public_url)
    origins |= _names(settings.allowed_origins) | _names(settings.browser_origins)
    return Guard(_names(settings.allowed_hosts) | hosts, origins)


def _names(listed: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in listed.split(",") if name.strip())
