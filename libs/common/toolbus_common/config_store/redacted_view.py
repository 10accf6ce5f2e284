"""Redacted views of the configuration, and restoration of the redacted secrets (no I/O)."""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, TypeVar

from toolbus_common.config import ConfigModel, Configuration, Issuer, Webhook
from toolbus_common.config.base import STORED_VALUE
from toolbus_common.config.servers.server import CREDENTIALS, DESTINATION
from toolbus_common.errors import InvalidConfigurationError
from toolbus_common.secrets import REFERENCE

DESTINATIONS: dict[str, tuple[str, ...]] = {  # the fields that decide who receives the secrets
    "servers": DESTINATION,
    "webhooks": ("url",),
    "issuers": ("url",),
    "exports": ("to", "endpoint", "region"),
    "sinks": ("url",),
    "providers": ("kind", "url", "proxy", "ca", "certificate", "certificate_key"),
    "guards": ("kind", "url", "server", "tool"),
    "plugins": ("url",),
    "evidence": ("to", "endpoint", "region"),  # of its checkpoints
}
D = TypeVar("D", bound=ConfigModel)
S = TypeVar("S", Issuer, Webhook)
HIDDEN = STORED_VALUE
MAX_EVENT_JSON = 131_072  # characters of an entry in an event
_REFERENCE = re.compile(rf"(?:[A-Za-z]+ )?{REFERENCE.pattern}")


def shown(entry: Any) -> Any:
    """Return an entry without its hash and with credentials redacted.

    References are not redacted.
    """
    if not isinstance(entry, dict):
        return entry
    view = {field: value for field, value in entry.items() if field != "secret_hash"}
    for field in CREDENTIALS:
        if field in view:
            view[field] = {name: _struck(value) for name, value in view[field].items()}
    if "secret" in view:
        view["secret"] = _struck(view["secret"])
    return view


def entries(configuration: Configuration, section: str) -> dict[str, Any]:
    """Return the redacted entries of a section."""
    dumped = configuration.model_dump(mode="json", exclude_defaults=True, include={section})
    return {name: shown(entry) for name, entry in dumped.get(section, {}).items()}


def exported(configuration: Configuration) -> dict[str, Any]:
    """Return the whole configuration, redacted. Applying it unchanged has no effect."""
    dumped = configuration.model_dump(mode="json", exclude_defaults=True)
    return {
        section: {name: shown(entry) for name, entry in entries.items()}
        for section, entries in dumped.items()
    }


def restored(new: Configuration, old: Configuration) -> Configuration:
    """Return the new configuration with stored secrets in place of missing ones and of `(set)`.

    Raises `InvalidConfigurationError` if a stored credential would be sent to another destination.
    """
    problems: list[dict[str, Any]] = []
    webhooks = {
        name: _with_secret(hook, old.webhooks.get(name), f"webhooks.{name}", problems)
        for name, hook in new.webhooks.items()
    }
    issuers = {
        name: _with_secret(issuer, old.issuers.get(name), f"issuers.{name}", problems)
        for name, issuer in new.issuers.items()
    }
    sections: dict[str, Any] = {"webhooks": webhooks, "issuers": issuers}
    for section in ("servers", "providers", "guards", "plugins", "exports", "sinks"):
        before, destination = getattr(old, section), DESTINATIONS[section]
        sections[section] = {
            name: _entry(entry, before.get(name), destination, f"{section}.{name}", problems)
            for name, entry in getattr(new, section).items()
        }
    if (checkpoints := new.evidence.checkpoints) is not None:
        known, destination = old.evidence.checkpoints, DESTINATIONS["evidence"]
        kept = _entry(checkpoints, known, destination, "evidence.checkpoints", problems)
        sections["evidence"] = new.evidence.model_copy(update={"checkpoints": kept})
    if problems:
        raise configuration_error(problems)
    sections["keys"] = _with_hashes(new.keys, old.keys)
    sections["admins"] = _with_hashes(new.admins, old.admins)
    sections["readers"] = _with_hashes(new.readers, old.readers)
    return new.model_copy(update=sections)


def configuration_error(problems: list[dict[str, Any]]) -> InvalidConfigurationError:
    """Return the error for an invalid configuration.

    Each problem is a dict with `location`, `line` and `reason`.
    """
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    message = f"{first['location']}: {first['reason']}" if first["location"] else first["reason"]
    return InvalidConfigurationError(
        f"{message}{more}; nothing was changed.", errors=problems[:100]
    )


def event_json(entry: Any) -> str:
    """Return an entry as JSON for an event.

    Credentials are redacted. A digest of `secret_hash` shows whether the secret has changed.
    """
    if entry is None:
        return ""
    view = shown(entry)
    if isinstance(entry, dict) and entry.get("secret_hash"):
        digest = sha256(entry["secret_hash"].encode()).hexdigest()
        view = {**view, "secret_digest": digest[:16]}
    text = json.dumps(view, ensure_ascii=False)
    return text if len(text) <= MAX_EVENT_JSON else text[: MAX_EVENT_JSON - 1] + "…"


def is_reference(value: str) -> bool:
    """Return whether a value is only a reference to a secret and contains no secret itself."""
    return _REFERENCE.fullmatch(value) is not None


def _struck(value: Any) -> Any:
    return value if is_reference(str(value)) else HIDDEN


def _entry(
    entry: D,
    old: D | None,
    destination: tuple[str, ...],
    path: str,
    problems: list[dict[str, Any]],
) -> D:
    """Return the entry with its stored credentials, which require an unchanged destination."""
    same = old is not None and all(
        getattr(entry, field) == getattr(old, field) for field in destination
    )
    update = {
        field: _kept(
            getattr(entry, field), getattr(old, field) if same else {}, f"{path}.{field}", problems
        )
        for field in CREDENTIALS
        if field in type(entry).model_fields
    }
    return entry.model_copy(update=update)


def _with_secret(new: S, old: S | None, path: str, problems: list[dict[str, Any]]) -> S:
    """Return the entry with its stored secret, which requires an unchanged URL."""
    kept = {"": old.secret} if old is not None and old.url == new.url else {}
    secret = _kept({"": new.secret}, kept, f"{path}.secret", problems)[""]
    return new.model_copy(update={"secret": secret})


def _kept(
    values: Mapping[str, str], old: Mapping[str, str], path: str, problems: list[dict[str, Any]]
) -> dict[str, str]:
    for name, value in values.items():
        if value == HIDDEN and name not in old:
            reason = f"{HIDDEN} keeps the stored value, but none is stored for this address; set it"
            place = f"{path}.{name}" if name else path
            problems.append({"location": place, "line": 0, "reason": reason})
    return {
        name: old.get(name, value) if value == HIDDEN else value for name, value in values.items()
    }


def _with_hashes(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: entry.model_copy(update={"secret_hash": old[name].secret_hash})
        if not entry.secret_hash and name in old
        else entry
        for name, entry in new.items()
    }
