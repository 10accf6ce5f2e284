"""Questions to plugins about changes of keys and admin keys, at the point `on_key`."""

import asyncio
import secrets
from collections.abc import Callable, Iterable
from typing import Any, Literal

from msgspec import Struct

from toolbus_common.config import Admin, Configuration, Key
from toolbus_common.config_store.diff import Change
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.errors import ForbiddenError
from toolbus_common.plugins.decisions import Decision, refusal_of
from toolbus_common.plugins.requests import PluginRequests

AT_ONCE = 32  # questions
Action = Literal["created", "changed", "rotated", "revoked"]
_SECRETS = {"secret_hash", "revoked"}


class KeyChange(Struct, frozen=True):
    """A change of one key, or admin key, from `old` to `new`. None means that there is none."""

    name: str
    old: Key | Admin | None
    new: Key | Admin | None

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


def key_changes(
    different: Iterable[Change], old: Configuration, new: Configuration
) -> list[KeyChange]:
    """Return the changes of keys and admin keys among the changes of a configuration."""
    return [
        KeyChange(
            each.name,
            getattr(old, each.section).get(each.name),
            getattr(new, each.section).get(each.name),
        )
        for each in different
        if each.section in ("keys", "admins")
    ]


async def ask(
    requests: PluginRequests,
    changed: Iterable[KeyChange],
    by: str,
    customer_of: Callable[[Key], str],
) -> None:
    """Ask plugins about changes by `by`. Raises `ForbiddenError` if one refuses.

    A revocation cannot be refused, because a leaked key must always be revocable.
    """
    if not any("on_key" in plugin.hooks for plugin in requests.declared.values()):
        return
    places = asyncio.Semaphore(AT_ONCE)

    async def refusal(change: KeyChange) -> str:
        async with places:
            return await refusal_of(requests, _decision(change, customer_of), _content(change, by))

    waiting = list(changed)
    reasons = await asyncio.gather(*map(refusal, waiting))
    for change, reason in zip(waiting, reasons, strict=True):
        if reason and change.action != "revoked":
            raise ForbiddenError(
                f"{reason}. Nothing was changed. Ask an operator about the plugin, or change the "
                f"key '{change.name}'."
            )


def _decision(change: KeyChange, customer_of: Callable[[Key], str]) -> Decision:
    entry = change.new or change.old
    customer = customer_of(entry) if isinstance(entry, Key) else DEFAULT_CUSTOMER
    return Decision("on_key", "key", f"key.{secrets.token_hex(12)}", customer, change.name)


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
