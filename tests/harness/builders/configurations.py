"""Configurations, their changes in the bucket, and listings of servers."""

from collections.abc import Callable, Iterable
from typing import Any

from toolbus_common.access.config_snapshot import hash_of
from toolbus_common.config import Configuration, Key
from toolbus_common.contracts import CatalogEntry, Listing, ServerState
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIGURATION, KEY_PREFIX


def configured(**sections: Any) -> Configuration:
    """Return a configuration with these sections."""
    return Configuration.model_validate(sections)


def configuration_change(configuration: Configuration, revision: int = 1) -> Change:
    """Return the change of the bucket that sets this configuration."""
    return Change(CONFIGURATION, configuration.model_dump_json().encode(), revision)


def listing_of(server: str, *tools: str, prompts: Iterable[str] = (), **fields: Any) -> Listing:
    """Return the listing of a ready server with these tools and prompts."""

    def entries(names: Iterable[str]) -> tuple[CatalogEntry, ...]:
        return tuple(CatalogEntry(name=name, definition={"name": name}) for name in names)

    lists = {"tools": entries(tools), "prompts": entries(prompts)}
    return Listing(server=server, state=ServerState.READY, **lists, **fields)


class ConfigFeed:
    """Configuration changes with rising revisions, passed to a consumer."""

    def __init__(self, consume: Callable[[Change | None], object]) -> None:
        self._consume = consume
        self._revision = 0

    def declare(self, configuration: Configuration) -> None:
        """Replace the configuration."""
        self._revision += 1
        self._consume(configuration_change(configuration, self._revision))

    def key(self, name: str, digest: str, *tools: str, revoked: bool = False) -> None:
        """Create or replace the key with this digest."""
        self._revision += 1
        key = Key(tools=tools, secret_hash=hash_of(digest), revoked=revoked)
        entry = key.model_dump_json().encode()
        self._consume(Change(f"{KEY_PREFIX}{name}", entry, self._revision))

    def loaded(self) -> None:
        """Report that all stored entries were delivered."""
        self._consume(None)
