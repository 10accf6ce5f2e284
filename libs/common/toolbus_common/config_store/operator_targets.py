"""Digests of the destinations that the operator has confirmed.

The digests are stored in an entry of the bucket tb_config. Only the operator's NATS user has
permission to write this entry, so other writers of the configuration cannot confirm a destination.
"""

import json
import logging
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from toolbus_common.config import (
    Configuration,
    Guard,
    Issuer,
    Place,
    Provider,
    Server,
    Sink,
    Webhook,
    Witness,
)
from toolbus_common.config.servers.server import BOUNDS
from toolbus_common.nats.kv_bucket import Change

log = logging.getLogger(__name__)

NAMED = "named"  # the name of the entry
Target = Server | Webhook | Issuer | Place | Sink | Witness | Provider | Guard

# A change of these fields does not change the destination. All other fields count: if a new
# harmless field is missing here, the operator must repeat 'toolbus apply', but no destination is
# permitted by mistake.
_HARMLESS = frozenset(
    {
        "headers", "env", "credentials", "operations", "refresh", "tools", "expose", "definitions",
        "code_mode", "content", "result_content", "timeout", "max_total_timeout", "concurrency",
        "probe", "results", "validation", "identity", "protocol",
        "idle", *(each for each in BOUNDS if each != "network"), "probe_path",
    }
)  # fmt: skip


def digest_of(entry: Target) -> str:
    """Return the digest of the destination of an entry.

    The digest of a provider or guard also covers its kind, and whether the machine's credentials
    are sent there.
    """
    destination: Any
    if isinstance(entry, Server):
        destination = entry.model_dump(mode="json", exclude_defaults=True, exclude=set(_HARMLESS))
    elif isinstance(entry, Provider):
        destination = [digest_of(entry.endpoint), entry.kind, entry.region, entry.ambient]
    elif isinstance(entry, Guard):
        destination = [entry.kind, entry.service_url, entry.ambient]
    elif isinstance(entry, Place):
        destination = [entry.to, entry.bucket_url]
    else:
        destination = entry.url
    text = json.dumps([type(entry).__name__, destination], sort_keys=True)
    return sha256(text.encode()).hexdigest()


def digests_of(configuration: Configuration) -> Iterator[str]:
    """Yield the digests of all destinations in a configuration."""
    yield from map(digest_of, configuration.servers.values())
    for provider in configuration.providers.values():
        yield digest_of(provider.endpoint)
        if provider.ambient:
            yield digest_of(provider)
    for guard in configuration.guards.values():
        if url := guard.service_url:
            yield digest_of(Server(url=url))
        if guard.ambient:
            yield digest_of(guard)
    for plugin in configuration.plugins.values():
        if plugin.url:
            yield digest_of(Server(url=plugin.url))
    yield from map(digest_of, configuration.webhooks.values())
    yield from map(digest_of, configuration.exports.values())
    yield from map(digest_of, configuration.sinks.values())
    yield from map(digest_of, configuration.issuers.values())
    yield from map(digest_of, configuration.evidence.witnesses)
    if configuration.evidence.checkpoints:
        yield digest_of(configuration.evidence.checkpoints)


def encoded(digests: set[str]) -> bytes:
    """Return the value of the bucket entry for these digests."""
    return json.dumps({"digests": sorted(digests)}).encode()


def decoded(value: bytes | None) -> frozenset[str]:
    """Return the digests of a bucket entry; an empty set if the entry is unreadable."""
    try:
        return frozenset(json.loads(value)["digests"]) if value else frozenset()
    except (ValueError, KeyError, TypeError):
        log.error("egress.confirmations_unreadable")  # noqa: TRY400 - a traceback would not help
        return frozenset()


class ConfirmedTargets:
    """The confirmed destinations, updated by changes of the bucket tb_config."""

    fault = ""  # a value that cannot be read confirms nothing

    def __init__(self) -> None:
        self._digests: frozenset[str] = frozenset()

    def apply_change(self, change: Change | None) -> None:
        """Apply one change of the bucket."""
        if change is not None and change.key == NAMED:
            self._digests = decoded(change.value)

    def has(self, entry: Target) -> bool:
        """Return whether the operator has confirmed the destination of this entry."""
        return digest_of(entry) in self._digests
