"""Whether a NATS server is cut from the others of its cluster, as seen by one of its clients."""

from typing import Any

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from toolbus_common.nats.topology import CONFIG

PROBE_SECONDS = 1.0
SILENT_NANOSECONDS = 3_000_000_000  # heartbeats between copies come every second
_UNAVAILABLE = 503
_STATE = f"$JS.API.STREAM.INFO.KV_{CONFIG}"  # every service may read it


async def is_isolated(client: Client) -> bool:
    """Return whether the server cannot reach a leader that sees most copies of the configuration.

    A leader that is cut off continues to reply for some seconds, so its reply counts only if it has
    seen most copies.
    """
    try:
        reply = await client.request(_STATE, b"", timeout=PROBE_SECONDS)
        state: dict[str, Any] = msgspec.json.decode(reply.data)
    except (NatsError, TimeoutError, msgspec.DecodeError):
        return True
    if error := state.get("error"):
        return bool(error.get("code") == _UNAVAILABLE)
    others = state.get("cluster", {}).get("replicas") or []
    seen = sum(not each.get("offline") and each["active"] < SILENT_NANOSECONDS for each in others)
    return bool((1 + seen) * 2 <= 1 + len(others))
