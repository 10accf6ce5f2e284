"""Destinations confirmed by the operator, as digests.

They are stored in an entry of the bucket tb_config that only the operator's NATS user may write, so
that other writers of the configuration cannot confirm a destination.
"""

import json
import logging
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from toolbus_common.config import Configuration, Issuer, Place, Server, Sink, Webhook, Witness
from toolbus_common.config.servers.server import BOUNDS
from toolbus_common.nats.kv_bucket import Change

log = logging.getLogger(__name__)

NAMED = "named"  # the entry's key
Target = Server | Webhook | Issuer | Place | Sink | Witness

# Fields that may change without changing the destination. Any other field counts: a forgotten new
# one costs the operator another 'toolbus apply', and permits no destination.
_HARMLESS = frozenset(
    {
        "headers", "env", "credentials", "operations", "refresh", "tools", "expose", "definitions",
        "code_mode", "content", "result_content", "timeout", "max_total_timeout", "concurrency",
        "probe", "results", "validation", "identity", "protocol",
        "idle", *(each for each in BOUNDS if each != "network"), "probe_path",
    }
)  # fmt: skip


def digest_of(entry: Target) -> str:
    """Return the digest of an entry's destination."""
    destination: Any
    if isinstance(entry, Server):
        destination = entry.model_dump(mode="json", exclude_defaults=True, exclude=set(_HARMLESS))
    elif isinstance(entry, Place):
        destination = [entry.to, entry.bucket_url]
    else:
        destination = entry.url
    text = json.dumps([type(entry).__name__, destination], sort_keys=True)
    return sha256(text.encode()).hexdigest()


def digests_of(configuration: Configuration) -> Iterator[str]:
    """Yield the digests of all destinations."""
    yield from map(digest_of, configuration.servers.values())
    yield from map(digest_of, configuration.webhooks.values())
    yield from map(digest_of, configuration.exports.values())
    yield from map(digest_of, configuration.sinks.values())
    yield from map(digest_of, configuration.issuers.values())
    yield from map(digest_of, configuration.evidence.witnesses)
    if configuration.evidence.checkpoints:
        yield digest_of(configuration.evidence.checkpoints)


def encoded(digests: set[str]) -> bytes:
    """Return the value of the bucket entry."""
    return json.dumps({"digests": sorted(digests)}).encode()


def decoded(value: bytes | None) -> frozenset[str]:
    """Return the digests of a bucket entry; none if it is unreadable."""
    try:
        return frozenset(json.loads(value)["digests"]) if value else frozenset()
    except (ValueError, KeyError, TypeError):
        log.error("egress.confirmations_unreadable")  # noqa: TRY400 - the traceback is of no use
        return frozenset()


class ConfirmedTargets:
    """The confirmed destinations in a service, updated by changes of tb_config."""

    def __init__(self) -> None:
        self._digests: frozenset[str] = frozenset()

    def apply_change(self, change: Change | None) -> None:
        """Apply one change of the bucket."""
        if change is not None and change.key == NAMED:
            self._digests = decoded(change.value)

    def has(self, entry: Target) -> bool:
        """Return whether the operator confirmed the destination of this entry."""
        return digest_of(entry) in self._digests
