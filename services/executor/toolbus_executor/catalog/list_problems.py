"""Problems of a server's lists. They are logged and published when they change."""

import logging

from toolbus_common.contracts import Listing, ServerFaulted
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_executor.server_events import about_server
from toolbus_executor.upstreams.listing import repairs_of

log = logging.getLogger(__name__)


class ListProblems:
    """Dropped entries, repaired entries and failed lists of one server, each with the reason."""

    def __init__(self, server: str, events: EventPublisher) -> None:
        self.dropped: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self._repaired: dict[str, str] = {}
        self._server = server
        self._events = events

    def note(self, listing: Listing) -> None:
        """Log and publish the problems of a listing, if they differ from the previous problems."""
        repaired = repairs_of(listing)
        now = listing.dropped, listing.failed, repaired
        if now == (self.dropped, self.failed, self._repaired):
            return
        self.dropped, self.failed, self._repaired = now
        for what, reason in (self.dropped | self.failed).items():
            fields = {"server": self._server, "what": what, "reason": reason}
            log.warning("listing.entry_dropped", extra=fields)
        for what, how in repaired.items():
            log.info(
                "listing.entry_repaired", extra={"server": self._server, "what": what, "how": how}
            )
        about = about_server(self._server, "faulted")
        found = {"dropped": self.dropped, "failed": self.failed, "repaired": repaired}
        self._events.publish(ServerFaulted(**about, **found))
