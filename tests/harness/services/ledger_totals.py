"""What the ledger has spent and reserved."""

from typing import Any

import redis

from toolbus_policy.ledger.valkey_store import BOOK, customer_key


def spent_and_reserved(valkey_url: str) -> tuple[int, int]:
    """Return the spent and the reserved micro-dollars of all keys of the default customer."""
    spent = reserved = 0
    with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        epoch = client.hget(customer_key("default", BOOK), "epoch")
        for name in client.scan_iter(f"{{default}}:{epoch!s}:budget:key:*"):
            level: Any = client.hgetall(name)
            spent += int(level.get("spent", 0))
            reserved += int(level.get("reserved", 0))
    return spent, reserved
