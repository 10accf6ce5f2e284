"""The ingress room: the edge, where HTTP becomes calls on the bus and back.

hears   the frames of its calls; the buckets tb_config and tb_catalogue
says    CallRequested
owns    nothing: any replica serves any request
"""

from contextlib import AbstractAsyncContextManager

from toolbus_common.exchange import Exchange
from toolbus_common.provision import CATALOGUE, CONFIG
from toolbus_common.room import Room
from toolbus_common.snapshot import Directory
from toolbus_ingress.app import App
from toolbus_ingress.endpoint import Endpoint
from toolbus_ingress.guard import Guard
from toolbus_ingress.http import listening
from toolbus_ingress.listing import Catalogue
from toolbus_ingress.settings import Settings


def build(exchange: Exchange) -> Room:
    """Wire the room. Nothing connects until it runs."""
    settings = Settings()
    room = Room("ingress", settings, exchange)
    directory = Directory()
    catalogue = Catalogue(directory)
    room.watches(CONFIG)(directory.hear)
    room.watches(CATALOGUE)(catalogue.hear)
    endpoint = Endpoint(
        room=room,
        guard=Guard(_names(settings.allowed_hosts), _names(settings.allowed_origins)),
        directory=directory,
        catalogue=catalogue,
        largest_body=settings.largest_body,
        body_timeout=settings.body_timeout,
        call_timeout=settings.call_timeout,
        most_in_flight=settings.most_in_flight,
    )
    app = App(endpoint, lambda: [room])

    def listens() -> AbstractAsyncContextManager[None]:
        return listening(app, settings.http_host, settings.http_port)

    room.needs(listens)
    return room


def _names(listed: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in listed.split(",") if name.strip())
