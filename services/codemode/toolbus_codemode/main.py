"""The codemode room: programs that call tools will run here. It runs none yet.

hears   nothing
says    nothing
owns    nothing
"""

from toolbus_codemode.settings import Settings
from toolbus_common.exchange import Exchange
from toolbus_common.room import Room


def build(exchange: Exchange) -> Room:
    """Wire the room. Nothing connects until it runs."""
    room = Room("codemode", Settings(), exchange)
    room.details = lambda: {"runs_programs": False}
    return room
