"""Binding of an approval (no I/O). A call with another binding needs another approval."""

import json
from hashlib import sha256
from typing import Any

from toolbus_common.access.principal import Principal
from toolbus_common.config import Configuration
from toolbus_common.contracts import CallRequested, Listing

# Fields of levels that grant or deny. Budgets and rates are checked when the call is made.
_POLICY_FIELDS = {"tools", "groups", "deny", "approve", "environment", "expires"}
# Fields of a server that change neither the call nor its destination.
_IGNORED_FIELDS = {"tools", "timeout", "max_total_timeout", "concurrency", "definitions"}
_KINDS = ("tools", "prompts", "resources", "templates")


def binding_of(call: CallRequested, key: str, definition: str, policy: str) -> str:
    """Return SHA-256 in hex over the caller, the call, the tool's definition, and the policy."""
    arguments = sha256(call.arguments).hexdigest()
    return _digest([key, call.server, call.tool, call.method, arguments, definition, policy])


def definition_digest(listing: Listing | None, name: str) -> str:
    """Return SHA-256 of the definition in canonical JSON; empty if the name is not listed."""
    for kind in _KINDS if listing is not None else ():
        for offered in getattr(listing, kind):
            if offered.name == name:
                return offered.digest or _digest(offered.as_sent)
    return ""


def policy_digest(principal: Principal, declared: Configuration, server: str) -> str:
    """Return SHA-256 of the policy that applies to one key's calls of one server.

    It covers what the key's levels grant, deny and require approval for, the groups they name,
    every rule and label, and the server's location. Other changes keep approvals valid.
    """
    named = {group for _, level in principal.levels for group in level.groups}
    target = declared.servers.get(server)
    return _digest(
        {
            "levels": [
                [name, level.model_dump(mode="json", include=_POLICY_FIELDS)]
                for name, level in principal.levels
            ],
            "groups": _dumped({name: declared.groups.get(name) for name in named}),
            "rules": _dumped(declared.rules),
            "labels": declared.labels,
            "server": target and target.model_dump(mode="json", exclude=_IGNORED_FIELDS),
        }
    )


def _dumped(declared: dict[str, Any]) -> dict[str, Any]:
    return {name: each and each.model_dump(mode="json") for name, each in declared.items()}


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256(canonical.encode()).hexdigest()
