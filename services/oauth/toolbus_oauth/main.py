"""The oauth room: tokens for agents, people and upstreams will live here. It gives none yet.

hears   nothing
says    nothing
owns    nothing
"""

from toolbus_common.exchange import Exchange
from toolbus_common.room import Room
from toolbus_oauth.settings import Settings


def build(exchange: Exchange) -> Room:
    """Wire the room. Nothing connects until it runs."""
    room = Room("oauth", Settings(), exchange)
    room.details = lambda: {"gives_tokens": False}
    return room
