"""Questions to plugins about changes of keys and admin keys, at the point `on_key`."""

import asyncio
import secrets
from collections.abc import Iterable
from time import time
from typing import Any, Literal

from msgspec import Struct

from toolbus_common.access.principal import principal_of
from toolbus_common.config import Admin, Configuration, Key
from toolbus_common.config_store.diff import Change
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.errors import ForbiddenError
from toolbus_common.plugins.decisions import Decision, refusal_of
from toolbus_common.plugins.requests import PluginRequests

AT_ONCE = 32  # questions
SECONDS = 8.0  # for all questions of one change; the administration API waits 20 s for the change
Action = Literal["created", "changed", "rotated", "revoked"]
_SECRETS = {"secret_hash", "revoked"}


class KeyChange(Struct, frozen=True):
    """A change of one key, or admin key, from `old` to `new`. None means that there is none.

    `customer` pays for the key, or paid for a key that is gone.
    """

    name: str
    old: Key | Admin | None
    new: Key | Admin | None
    customer: str

    @property
    def action(self) -> Action:
        """What happens to the key. A revoked key that becomes valid again is created."""
        old, new = self.old, self.new
        if new is None or (new.revoked and old is not None):
            return "revoked"
        if old is None or old.revoked:
            return "created"
        rotated = old.model_copy(update={"secret_hash": new.secret_hash}) == new
        return "rotated" if rotated else "changed"


def key_change(
    name: str, old: Key | Admin | None, new: Key | Admin | None, configuration: Configuration
) -> KeyChange:
    """Return a change of one key; `configuration` has the team and the user that `new` names."""
    entry = new or old
    customer = customer_of(entry, configuration) if isinstance(entry, Key) else DEFAULT_CUSTOMER
    return KeyChange(name, old, new, customer)


def key_changes(
    different: Iterable[Change], old: Configuration, new: Configuration
) -> list[KeyChange]:
    """Return the changes of keys and admin keys among the changes of a configuration."""
    found = []
    for each in different:
        if each.section in ("keys", "admins"):
            before = getattr(old, each.section).get(each.name)
            after = getattr(new, each.section).get(each.name)
            found.append(key_change(each.name, before, after, old if after is None else new))
    return found


def customer_of(key: Key, configuration: Configuration) -> str:
    """Return the customer that pays for a key."""
    return principal_of("", key, configuration).customer


async def ask(requests: PluginRequests, changed: Iterable[KeyChange], by: str) -> None:
    """Ask plugins about changes by `by`, except revocations.

    Raises `ForbiddenError` if a plugin refuses one.
    """
    refusable = [each for each in changed if each.action != "revoked"]
    for change, reason in zip(refusable, await _refusals(requests, refusable, by), strict=False):
        if reason:
            raise ForbiddenError(
                f"{reason}. Nothing was changed. Ask an operator about the plugin, or change the "
                f"key '{change.name}'."
            )


async def report(requests: PluginRequests, changed: Iterable[KeyChange], by: str) -> None:
    """Tell plugins about stored revocations.

    A leaked key must always be revocable at once, so that they can neither refuse nor delay it.
    """
    await _refusals(requests, [each for each in changed if each.action == "revoked"], by)


async def _refusals(requests: PluginRequests, changed: list[KeyChange], by: str) -> list[str]:
    """Return why plugins refuse each change; an empty list if no plugin is asked."""
    if not any("on_key" in plugin.hooks for plugin in requests.declared.values()):
        return []
    places, until = asyncio.Semaphore(AT_ONCE), time() + SECONDS

    async def refusal(change: KeyChange) -> str:
        async with places:
            decision = Decision(
                "on_key", "key", f"key.{secrets.token_hex(12)}", change.customer, change.name
            )
            return await refusal_of(requests, decision, _content(change, by), until)

    return await asyncio.gather(*map(refusal, changed))


def _content(change: KeyChange, by: str) -> dict[str, Any]:
    """Return what plugins see of a change: no secret, and no hash of one."""
    entry = change.new or change.old
    return {
        "action": change.action,
        "kind": "key" if isinstance(entry, Key) else "admin",
        "by": by,
        "terms": entry.model_dump(mode="json", exclude_defaults=True, exclude=_SECRETS)
        if entry is not None
        else {},
    }
