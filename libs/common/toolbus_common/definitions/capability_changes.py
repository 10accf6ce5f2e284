"""What a changed definition of a tool can do beyond its approved version, as lines for review."""

from collections.abc import Iterator
from typing import Any

from toolbus_common.definitions.visible_text import revealed

MOST = 20  # new parameters that are named
# By hint of MCP: its safe value, and the message for a definition that no longer declares it.
_HINTS = {
    "readOnlyHint": (True, "it no longer declares that it only reads"),
    "destructiveHint": (False, "it no longer declares that it destroys nothing"),
    "idempotentHint": (True, "it no longer declares that a repeated call changes nothing more"),
    "openWorldHint": (False, "it no longer declares that it reaches no other systems"),
}
_DESTROYS = "it declares now that it can destroy data (annotations.destructiveHint)"
_SECRETS = ("password", "passwd", "passphrase", "secret", "credential", "apikey", "privatekey",
            "sshkey", "cookie", "accesstoken", "authtoken", "apitoken", "sessiontoken",
            "refreshtoken", "bearertoken")  # fmt: skip


def capability_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what a definition allows or requests in addition; empty without an old definition."""
    return [*_hints(old, new), *_parameters(old, new)] if old else []


def _hints(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    before, after = _dict(old, "annotations"), _dict(new, "annotations")
    destroys = after.get("destructiveHint") is True and before.get("destructiveHint") is not True
    for hint, (safe, text) in _HINTS.items():
        if hint == "destructiveHint" and destroys:
            yield _DESTROYS
        elif before.get(hint) is safe and after.get(hint) is not safe:
            yield f"{text} (annotations.{hint})"


def _parameters(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    before, after = _dict(old, "inputSchema"), _dict(new, "inputSchema")
    known, required = {*_dict(before, "properties")}, _required(after) - _required(before)
    names = sorted(({*_dict(after, "properties")} - known) | required)
    shown = [name for name in names if name in required or _asks_for_secret(name)]
    for name in shown[:MOST]:
        new_one = "" if name in known else "new "
        has = f"requires a {new_one}parameter" if name in required else "has a new parameter"
        secret = "; its name asks for a secret" if _asks_for_secret(name) else ""
        yield f"it {has}: {revealed(name)}{secret}"
    if len(shown) > MOST:
        yield f"it has {len(shown) - MOST} further new parameters of this kind"


def _asks_for_secret(name: str) -> bool:
    plain = "".join(char for char in name.casefold() if char.isalnum())
    return plain in ("token", "otp", "pin") or any(secret in plain for secret in _SECRETS)


def _required(schema: dict[str, Any]) -> set[str]:
    names = schema.get("required")
    return {each for each in names if isinstance(each, str)} if isinstance(names, list) else set()


def _dict(value: dict[str, Any], member: str) -> dict[str, Any]:
    found = value.get(member)
    return found if isinstance(found, dict) else {}
