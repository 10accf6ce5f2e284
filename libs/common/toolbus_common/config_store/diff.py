"""Differences between two configurations, entry by entry. Secrets are never shown."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from toolbus_common.config import Configuration
from toolbus_common.config.servers.server import CREDENTIALS
from toolbus_common.contracts.events.config import PERSON_KINDS

SECTIONS = tuple(Configuration.model_fields)
ADDED, REMOVED, CHANGED = "+", "-", "~"


@dataclass(frozen=True, slots=True)
class Change:
    """One added, removed or changed entry.

    `fields` maps each changed field to its values before and after the change.
    """

    sign: str
    section: str
    name: str
    fields: dict[str, tuple[Any, Any]]

    def __str__(self) -> str:
        """Return the change as one line."""
        line = f"{self.sign} {self.section}.{self.name}"
        if self.sign != CHANGED:
            return line
        return line + ": " + ", ".join(_field(name, *pair) for name, pair in self.fields.items())


def changes(old: Configuration, new: Configuration) -> list[Change]:
    """Return all differences, in the order of the configuration's sections."""
    found = []
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    for section in SECTIONS:
        was, becomes = before[section] or {}, after[section] or {}  # None: not configured
        for name in sorted({*was, *becomes}):
            change = _change(section, name, was.get(name), becomes.get(name))
            if change is not None:
                found.append(change)
    return found


def summary_of(different: Iterable[Change]) -> dict[str, Any]:
    """Return the signs of the changed entries by name.

    For entries about people, only the number of changes of each section is returned.
    """
    summary: dict[str, Any] = {}
    for change in different:
        if change.section in PERSON_KINDS:
            summary[change.section] = summary.get(change.section, 0) + 1
        else:
            summary[f"{change.section}.{change.name}"] = change.sign
    return summary


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


def _field(field: str, old: Any, new: Any) -> str:
    if field in ("secret_hash", "secret"):
        return "secret changed"
    if field in CREDENTIALS:
        return f"{field} changed"  # the values can contain credentials
    return f"{field} {old!r} → {new!r}".lstrip()
