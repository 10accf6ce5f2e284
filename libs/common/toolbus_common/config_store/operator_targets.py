"""What the operator named himself: destinations of the file he applied, by their digests.

They are an entry of the bucket tb_config which only the operator's user may write, so whoever
changes the declaration by other ways cannot say that it was he.
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
Leads = Server | Webhook | Issuer | Place | Sink | Witness

# What may change without leading elsewhere. A field that is not here counts: one that is new and
# forgotten costs an operator another 'toolbus apply', and gives nobody an address.
_HARMLESS = frozenset(
    {
        "headers", "env", "credentials", "operations", "refresh", "tools", "expose", "definitions",
        "code_mode", "content", "result_content", "timeout", "max_total_timeout", "concurrency",
        "probe", "results", "validation", "identity", "protocol",
        "idle", *(each for each in BOUNDS if each != "network"), "probe_path",
    }
)  # fmt: skip


def digest_of(entry: Leads) -> str:
    """What stands for where something declared leads."""
    told: Any
    if isinstance(entry, Server):
        told = entry.model_dump(mode="json", exclude_defaults=True, exclude=set(_HARMLESS))
    elif isinstance(entry, Place):
        told = [entry.to, entry.bucket_url]
    else:
        told = entry.url
    text = json.dumps([type(entry).__name__, told], sort_keys=True)
    return sha256(text.encode()).hexdigest()


def digests_of(declaration: Configuration) -> Iterator[str]:
    """Of everything that leads somewhere."""
    yield from map(digest_of, declaration.servers.values())
    yield from map(digest_of, declaration.webhooks.values())
    yield from map(digest_of, declaration.exports.values())
    yield from map(digest_of, declaration.sinks.values())
    yield from map(digest_of, declaration.issuers.values())
    yield from map(digest_of, declaration.evidence.witnesses)
    if declaration.evidence.checkpoints:
        yield digest_of(declaration.evidence.checkpoints)


def encoded(digests: set[str]) -> bytes:
    """The entry's value."""
    return json.dumps({"digests": sorted(digests)}).encode()


def decoded(value: bytes | None) -> frozenset[str]:
    """The digests in an entry; none in one that cannot be read."""
    try:
        return frozenset(json.loads(value)["digests"]) if value else frozenset()
    except (ValueError, KeyError, TypeError):
        log.error("egress.named_unreadable")  # noqa: TRY400 - what it holds is of no use
        return frozenset()


class Named:
    """The operator's word as a service knows it now; fed with the changes of tb_config."""

    def __init__(self) -> None:
        self._digests: frozenset[str] = frozenset()

    def hear(self, change: Change | None) -> None:
        """Take one change of the bucket."""
        if change is not None and change.key == NAMED:
            self._digests = decoded(change.value)

    def has(self, entry: Leads) -> bool:
        """Whether the operator named where this leads."""
        return digest_of(entry) in self._digests
