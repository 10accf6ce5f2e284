"""Schedule for listing a server again when the server limits the lifetime of its lists."""

import random
from time import time

from toolbus_common.contracts import Listing, ServerState

MIN_SECONDS = 5.0  # minimum pause, even if the server's `ttlMs` is shorter


def refresh_pause(listing: Listing) -> float | None:
    """Return the seconds until the next listing; None if the lists do not expire.

    A `ttlMs` of 0 is ignored, because servers send it as a default. Random jitter spreads the
    listings of servers and replicas.
    """
    if not listing.ttl_ms:
        return None
    left = (listing.remaining_ms(time()) or 0) / 1000
    return max(MIN_SECONDS, left) * random.uniform(1.0, 1.1)  # noqa: S311


def refreshed_elsewhere(known: Listing | None) -> bool:
    """Return whether another replica has refreshed the published listing."""
    if known is None or known.state is not ServerState.READY:
        return False
    return bool(known.remaining_ms(time()))
