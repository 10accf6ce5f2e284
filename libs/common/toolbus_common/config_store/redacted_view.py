"""What may be shown of a declaration, and how what was shown is taken back as it was. Pure."""

import json
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, TypeVar

from toolbus_common.config import ConfigModel, Configuration, Issuer, Webhook
from toolbus_common.config.servers.server import CREDENTIALS, DESTINATION
from toolbus_common.errors import FaultyError
from toolbus_common.secrets import REFERENCE

LEADS: dict[str, tuple[str, ...]] = {  # what says who is given an entry's secrets
    "servers": DESTINATION,
    "webhooks": ("url",),
    "issuers": ("url",),
    "exports": ("to", "endpoint", "region"),
    "sinks": ("url",),
}
D = TypeVar("D", bound=ConfigModel)
S = TypeVar("S", Issuer, Webhook)
HIDDEN = "(set)"  # stands for a credential that is kept
LONGEST_TOLD = 131_072  # characters of an entry in an event
_REFERENCE = re.compile(rf"(?:[A-Za-z]+ )?{REFERENCE.pattern}")


def shown(entry: Any) -> Any:
    """An entry without its hash, and with credentials struck out; references stay."""
    if not isinstance(entry, dict):
        return entry
    kept = {field: value for field, value in entry.items() if field != "secret_hash"}
    for field in CREDENTIALS:
        if field in kept:
            kept[field] = {name: _struck(value) for name, value in kept[field].items()}
    if "secret" in kept:
        kept["secret"] = _struck(kept["secret"])
    return kept


def entries(declaration: Configuration, section: str) -> dict[str, Any]:
    """A section's entries as they may be shown."""
    told = declaration.model_dump(mode="json", exclude_defaults=True, include={section})
    return {name: shown(entry) for name, entry in told.get(section, {}).items()}


def exported(declaration: Configuration) -> dict[str, Any]:
    """The whole as it may be shown; applied again, it changes nothing."""
    told = declaration.model_dump(mode="json", exclude_defaults=True)
    return {
        section: {name: shown(entry) for name, entry in entries.items()}
        for section, entries in told.items()
    }


def restored(new: Configuration, old: Configuration) -> Configuration:
    """The new one with the secrets of the old where it names none, or says they are kept.

    Raises `FaultyError`: a credential is kept only for whoever it was given to.
    """
    faults: list[dict[str, Any]] = []
    webhooks = {
        name: _with_secret(hook, old.webhooks.get(name), f"webhooks.{name}", faults)
        for name, hook in new.webhooks.items()
    }
    issuers = {
        name: _with_secret(issuer, old.issuers.get(name), f"issuers.{name}", faults)
        for name, issuer in new.issuers.items()
    }
    sections: dict[str, Any] = {"webhooks": webhooks, "issuers": issuers}
    for section in ("servers", "exports", "sinks"):
        before, where = getattr(old, section), LEADS[section]
        sections[section] = {
            name: _entry(entry, before.get(name), where, f"{section}.{name}", faults)
            for name, entry in getattr(new, section).items()
        }
    if (places := new.evidence.checkpoints) is not None:
        where = ("to", "endpoint", "region")
        known = old.evidence.checkpoints
        kept = _entry(places, known, where, "evidence.checkpoints", faults)
        sections["evidence"] = new.evidence.model_copy(update={"checkpoints": kept})
    if faults:
        raise faulty(faults)
    sections["keys"] = _with_hashes(new.keys, old.keys)
    sections["admins"] = _with_hashes(new.admins, old.admins)
    sections["readers"] = _with_hashes(new.readers, old.readers)
    return new.model_copy(update=sections)


def faulty(faults: list[dict[str, Any]]) -> FaultyError:
    """The error for what does not hold together."""
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    said = f"{first['place']}: {first['reason']}" if first["place"] else first["reason"]
    return FaultyError(f"{said}{more}; nothing was changed.", faults=faults[:100])


def told_in_an_event(entry: Any) -> str:
    """An entry as JSON for an event: credentials struck out, of a hash only its digest."""
    if entry is None:
        return ""
    kept = shown(entry)
    if isinstance(entry, dict) and entry.get("secret_hash"):
        digest = sha256(entry["secret_hash"].encode()).hexdigest()
        kept = {**kept, "secret_digest": digest[:16]}
    text = json.dumps(kept, ensure_ascii=False)
    return text if len(text) <= LONGEST_TOLD else text[: LONGEST_TOLD - 1] + "…"


def is_reference(value: str) -> bool:
    """Whether it names a secret and holds none itself."""
    return _REFERENCE.fullmatch(value) is not None


def _struck(value: Any) -> Any:
    return value if is_reference(str(value)) else HIDDEN


def _entry(
    entry: D, old: D | None, where: tuple[str, ...], place: str, faults: list[dict[str, Any]]
) -> D:
    """An entry with the credentials it says are kept, if it still leads where it led."""
    same = old is not None and all(getattr(entry, field) == getattr(old, field) for field in where)
    update = {
        field: _kept(
            getattr(entry, field), getattr(old, field) if same else {}, f"{place}.{field}", faults
        )
        for field in CREDENTIALS
        if field in type(entry).model_fields
    }
    return entry.model_copy(update=update)


def _with_secret(new: S, old: S | None, place: str, faults: list[dict[str, Any]]) -> S:
    """The entry with the secret it had, where it says so and leads where it led."""
    kept = {"": old.secret} if old is not None and old.url == new.url else {}
    secret = _kept({"": new.secret}, kept, f"{place}.secret", faults)[""]
    return new.model_copy(update={"secret": secret})


def _kept(
    values: Mapping[str, str], old: Mapping[str, str], place: str, faults: list[dict[str, Any]]
) -> dict[str, str]:
    faults += _lost(values, old, place)
    return {
        name: old.get(name, value) if value == HIDDEN else value for name, value in values.items()
    }


def _lost(
    values: Mapping[str, str], old: Mapping[str, str], place: str
) -> Iterator[dict[str, Any]]:
    for name, value in values.items():
        if value == HIDDEN and name not in old:
            where = f"{place}.{name}" if name else place
            reason = f"{HIDDEN} keeps what is there, and nothing is for this address; give it anew"
            yield {"place": where, "line": 0, "reason": reason}


def _with_hashes(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: entry.model_copy(update={"secret_hash": old[name].secret_hash})
        if not entry.secret_hash and name in old
        else entry
        for name, entry in new.items()
    }
