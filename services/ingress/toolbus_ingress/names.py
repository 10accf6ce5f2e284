"""Names an agent sees and sends: `server__tool`, within what clients and models accept."""

import re
from collections.abc import Iterable
from hashlib import blake2s

from toolbus_common.contracts import Listing
from toolbus_common.grants import full_name, split_name

LONGEST = 64  # characters: several model APIs take no more
_KEPT = LONGEST - 9

_SERVER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,31}")
_TOOL = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class Names:
    """Full names, shortened where too long by a hash of the whole: the same in every replica."""

    def __init__(self, listings: Iterable[Listing] = ()) -> None:
        self._short: dict[str, tuple[str, str]] = {
            self.shown(listing.server, offered.name): (listing.server, offered.name)
            for listing in listings
            for offered in (*listing.tools, *listing.prompts)
            if len(full_name(listing.server, offered.name)) > LONGEST
        }

    @staticmethod
    def shown(server: str, name: str) -> str:
        """The name agents see on the shared endpoint."""
        full = full_name(server, name)
        if len(full) <= LONGEST:
            return full
        return f"{full[:_KEPT]}_{blake2s(full.encode(), digest_size=4).hexdigest()}"

    def meant(self, shown: str) -> tuple[str, str]:
        """The server and the name there; the server is empty where there is no separator."""
        return self._short.get(shown) or split_name(shown)


def is_server_name(name: str) -> bool:
    """Whether a server could be declared under this name."""
    return _SERVER.fullmatch(name) is not None


def is_tool_name(name: str) -> bool:
    """Whether a tool could be listed under this name (MCP SEP-986)."""
    return _TOOL.fullmatch(name) is not None
