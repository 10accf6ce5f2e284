"""Keys and admin keys as the administration API returns them, without secrets (no I/O)."""

from collections.abc import Container
from time import time
from typing import Any

from toolbus_common.config import Admin, Key
from toolbus_common.config.access.expiry import shown_expiry


def _state(entry: Key | Admin, *, expired: bool) -> str:
    if not entry.secret_hash:
        return "no secret"
    return "revoked" if entry.revoked else "expired" if expired else "live"


def shown_key(name: str, key: Key, own: Container[str]) -> dict[str, Any]:
    """Return a key; `own` are the names of the keys that a command created."""
    value = key.model_dump(mode="json", exclude_defaults=True, exclude={"secret_hash", "revoked"})
    return {
        "name": name,
        "state": _state(key, expired=key.expired(time())),
        "origin": "command" if name in own else "configuration",
        "value": value,
    }


def shown_admin(name: str, admin: Admin, own: Container[str]) -> dict[str, Any]:
    """Return an admin key; `own` are the names of the admin keys that a command created."""
    return {
        "name": name,
        "state": _state(admin, expired=not admin.revoked and not admin.live(time())),
        "origin": "command" if name in own else "configuration",
        "role": admin.role,
        "expires": shown_expiry(admin.expires) or None,
    }
