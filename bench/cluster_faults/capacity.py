"""Rates of calls that the machine carries beside the cluster, without a fault."""

import os
import time
from collections.abc import Iterator
from typing import Any

from cluster_faults.account import SLOW
from cluster_faults.installation import Installation

RATES = (50.0, 100.0, 150.0, 200.0)  # calls per second
CAPACITY_SECONDS = 10.0


def carried(place: Installation) -> Iterator[dict[str, Any]]:
    """Make calls at each rate until the machine does not sustain one; yield each rate's figures."""
    for rate in RATES:
        with place.loaded(rate) as load:
            time.sleep(CAPACITY_SECONDS)
        failed = dict(load.failed) | ({"connection broken": load.broken} if load.broken else {})
        longest = max((each.at - each.began for each in load.succeeded), default=0.0)
        is_carried = len(load.succeeded) == load.made and longest <= SLOW
        yield {
            "rate": rate,
            "calls": load.made,
            "failed": failed,
            "longest": round(longest, 2),
            "load": os.getloadavg()[0],
            "carried": is_carried,
        }
        if not is_carried:
            return
