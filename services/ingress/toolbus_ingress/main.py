"""The ingress room: the edge, where HTTP becomes calls on the bus and back.

hears   the frames of its calls; ServerSaid; SessionSaid of its other replicas; the buckets
        tb_config and tb_catalogue
says    CallRequested, CallCancelled, SessionSaid
asks    ApproverAsked and AdminAsked, of policy
owns    nothing but the streams open to it: any replica serves any request
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from toolbus_common.contracts import ServerSaid, SessionSaid
from toolbus_common.exchange import Exchange
from toolbus_common.provision import CATALOGUE, CONFIG
from toolbus_common.room import Room
from toolbus_common.snapshot import Directory
from toolbus_ingress.app import App
from toolbus_ingress.approvals import Approvals
from toolbus_ingress.asking import Questions
from toolbus_ingress.endpoint import Endpoint
from toolbus_ingress.guard import Guard
from toolbus_ingress.http import listening
from toolbus_ingress.hub import Hub
from toolbus_ingress.listing import Catalogue
from toolbus_ingress.local import Local
from toolbus_ingress.relay import Relay
from toolbus_ingress.resumption import Resumption
from toolbus_ingress.seal import Seal, load_key
from toolbus_ingress.sessions import Session, Sessions
from toolbus_ingress.settings import Settings
from toolbus_ingress.shelf import Shelf


def build(exchange: Exchange) -> Room:
    """Wire the room. Nothing connects until it runs."""
    settings = Settings()
    room = Room("ingress", settings, exchange)
    directory, catalogue = _watched(room)
    seal = Seal(load_key(settings.seal_key))
    questions = Questions()
    shelf = Shelf(settings.poll_after)
    relay = Relay(room, catalogue, seal, questions, shelf, settings.call_timeout)
    hub = Hub(catalogue, relay, shelf)
    directory.on_key.append(hub.hear_key)
    resumption = Resumption(room.bus, shelf)
    sessions = _sessions(room, seal, questions, relay)
    relay.on_begun = sessions.begun
    sessions.on_message, sessions.on_ended = hub.bring, hub.leave
    endpoint = Endpoint(
        room=room,
        guard=Guard(_names(settings.allowed_hosts), _names(settings.allowed_origins)),
        directory=directory,
        catalogue=catalogue,
        sessions=sessions,
        relay=relay,
        local=Local(catalogue, sessions, relay),
        hub=hub,
        resumption=resumption,
        shelf=shelf,
        largest_body=settings.largest_body,
        body_timeout=settings.body_timeout,
        most_in_flight=settings.most_in_flight,
    )
    app = App(endpoint, Approvals(endpoint, seal), lambda: [room])

    @asynccontextmanager
    async def open_to_clients() -> AsyncIterator[None]:
        await room.bus.subscribe(
            f"{ServerSaid.SUBJECT}.*", lambda data, *_: hub.hear(ServerSaid.decode(data))
        )
        await room.bus.subscribe(
            f"{SessionSaid.SUBJECT}.*", lambda data, *_: sessions.hear(SessionSaid.decode(data))
        )
        await resumption.open()
        async with listening(app, settings.http_host, settings.http_port):
            try:
                yield
            finally:
                hub.close()  # a stream would else keep the server from ending
                resumption.close()

    room.needs(open_to_clients)
    return room


def _watched(room: Room) -> tuple[Directory, Catalogue]:
    """What is declared, and what servers offer."""
    directory = Directory()
    catalogue = Catalogue(directory)
    room.watches(CONFIG)(directory.hear)
    room.watches(CATALOGUE)(catalogue.hear)
    return directory, catalogue


def _sessions(room: Room, seal: Seal, questions: Questions, relay: Relay) -> Sessions:
    def say(said: SessionSaid) -> None:
        room.spawn(room.bus.publish(said.subject, said.encode()))

    def cancel(session: Session, request_id: bytes) -> None:
        call_id = session.in_flight.get(request_id)
        if call_id is not None:
            room.spawn(relay.cancel(call_id))
            questions.give_up(session.sid, request_id)

    sessions = Sessions(seal, say)
    sessions.on_response = questions.heard
    sessions.on_cancelled = cancel
    return sessions


def _names(listed: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in listed.split(",") if name.strip())
