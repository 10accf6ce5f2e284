"""What an approval is bound to: whatever differs in any of it needs another approval. Pure."""

import json
from hashlib import sha256
from typing import Any

from toolbus_common.access.principal import Principal
from toolbus_common.config import Configuration
from toolbus_common.contracts import CallRequested, Listing

# What levels say about who may do what. Money and rates are checked when the call is made.
_GOVERNING = {"tools", "groups", "deny", "approve", "environment", "expires"}
# What of a server changes neither what is called nor who answers.
_INDIFFERENT = {"tools", "timeout", "max_total_timeout", "concurrency", "definitions"}
_KINDS = ("tools", "prompts", "resources", "templates")


def binding_of(call: CallRequested, key: str, definition: str, policy: str) -> str:
    """SHA-256 in hex over the caller, the call, the tool as it is defined, and the policy."""
    arguments = sha256(call.arguments).hexdigest()
    return _digest([key, call.server, call.tool, call.method, arguments, definition, policy])


def definition_digest(listing: Listing | None, name: str) -> str:
    """SHA-256 of the whole definition, in canonical JSON; empty for what is not listed."""
    for kind in _KINDS if listing is not None else ():
        for offered in getattr(listing, kind):
            if offered.name == name:
                return offered.digest or _digest(offered.as_sent)
    return ""


def policy_digest(principal: Principal, declared: Configuration, server: str) -> str:
    """SHA-256 of the policy that matters to one key's calls of one server.

    That is what its levels grant, deny and want approved, the groups they name, every rule and
    label, and where the server is. Any other change leaves approvals as they are.
    """
    named = {group for _, level in principal.levels for group in level.groups}
    reached = declared.servers.get(server)
    return _digest(
        {
            "levels": [
                [told, level.model_dump(mode="json", include=_GOVERNING)]
                for told, level in principal.levels
            ],
            "groups": _dumped({name: declared.groups.get(name) for name in named}),
            "rules": _dumped(declared.rules),
            "labels": declared.labels,
            "server": reached and reached.model_dump(mode="json", exclude=_INDIFFERENT),
        }
    )


def _dumped(declared: dict[str, Any]) -> dict[str, Any]:
    return {name: each and each.model_dump(mode="json") for name, each in declared.items()}


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256(canonical.encode()).hexdigest()
