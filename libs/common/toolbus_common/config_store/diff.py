"""What a new declaration changes, entry by entry; secrets are compared, never shown."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from toolbus_common.config import Configuration
from toolbus_common.config.servers.server import CREDENTIALS
from toolbus_common.contracts.events.config import PEOPLES

SECTIONS = tuple(Configuration.model_fields)
ADDED, REMOVED, CHANGED = "+", "-", "~"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry added, removed or changed; `fields` are the changed ones, before and after."""

    sign: str
    section: str
    name: str
    fields: dict[str, tuple[Any, Any]]

    def __str__(self) -> str:
        """One line."""
        line = f"{self.sign} {self.section}.{self.name}"
        if self.sign != CHANGED:
            return line
        return line + ": " + ", ".join(_said(name, *pair) for name, pair in self.fields.items())


def changes(old: Configuration, new: Configuration) -> list[Change]:
    """Everything that differs, in the order of the sections."""
    found = []
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    for section in SECTIONS:
        for name in sorted({*before[section], *after[section]}):
            change = _change(section, name, before[section].get(name), after[section].get(name))
            if change is not None:
                found.append(change)
    return found


def told_of(different: Iterable[Change]) -> dict[str, Any]:
    """Which entries changed; of people's entries only how many."""
    told: dict[str, Any] = {}
    for change in different:
        if change.section in PEOPLES:
            told[change.section] = told.get(change.section, 0) + 1
        else:
            told[f"{change.section}.{change.name}"] = change.sign
    return told


def _change(section: str, name: str, old: Any, new: Any) -> Change | None:
    if old == new:
        return None
    if old is None:
        return Change(ADDED, section, name, {})
    if new is None:
        return Change(REMOVED, section, name, {})
    if not isinstance(old, dict):
        return Change(CHANGED, section, name, {"": (old, new)})
    differing = {field: (old[field], new[field]) for field in old if old[field] != new[field]}
    return Change(CHANGED, section, name, differing)


def _said(field: str, old: Any, new: Any) -> str:
    if field in ("secret_hash", "secret"):
        return "secret changed"
    if field in CREDENTIALS:
        return f"{field} changed"  # they may hold credentials
    return f"{field} {old!r} → {new!r}".lstrip()
