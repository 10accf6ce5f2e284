"""What a server's process is held to on this machine, told at its start and in `toolbus status`."""

import logging
from typing import Any

from toolbus_executor.upstream import Upstream

log = logging.getLogger(__name__)


class Held:
    """What one server was told to be held to last."""

    def __init__(self, server: str) -> None:
        self.now: dict[str, bool] = {}
        self._server = server
        self._upstream: Upstream | None = None

    def told(self) -> dict[str, Any]:
        """For `toolbus status`; hosts it was refused, with how often, as long as it runs."""
        refused = getattr(self._upstream, "refused_hosts", {})
        return {"isolation": self.now, "refused_hosts": dict(refused)}

    def tell(self, upstream: Upstream | None) -> None:
        """Say what this machine cannot hold it to, unless that was said."""
        held = getattr(upstream, "held", {})
        if held != self.now:
            lacking = [what for what, in_force in held.items() if not in_force]
            about = {"server": self._server, "lacking": lacking}
            log.log(logging.WARNING if lacking else logging.INFO, "server.isolated", extra=about)
        self.now = held
        self._upstream = upstream
