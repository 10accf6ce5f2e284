"""When a server's lists are listed anew, where it says how long they may be kept."""

import random
from time import time

from toolbus_common.contracts import Listing, ServerState

LEAST_SECONDS = 5.0  # however soon a server's lists grow old


def pause_of(listing: Listing) -> float | None:
    """Seconds to wait; None for lists that are listed anew only when something happens.

    A `ttlMs` of 0 is what servers say that thought of nothing, and no wish to be asked for ever.
    The pauses differ, so that neither servers nor replicas keep step.
    """
    if not listing.ttl_ms:
        return None
    left = (listing.left_ms(time()) or 0) / 1000
    return max(LEAST_SECONDS, left) * random.uniform(1.0, 1.1)  # noqa: S311


def renewed(known: Listing | None) -> bool:
    """Whether another replica has listed anew what is published."""
    if known is None or known.state is not ServerState.READY:
        return False
    return bool(known.left_ms(time()))
