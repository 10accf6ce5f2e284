"""Readers of JSON values. A reader returns a value that clients can parse, or rejects the value.

A value is repaired only if its meaning is certain: `null` means an absent member; `[]` can mean an
empty object and `{}` an empty list, because languages with a single table type serialize them so.
An optional, decorative member (`spare`) that cannot be read is omitted. Every repair is noted.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

LONGEST_NOTES = 300  # characters of all notes of one value
_LONGEST_PATH = 80
_MOMENT = re.compile(
    r"(\d{4}-\d{2}-\d{2})T(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?"
    r"(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
)


class UnreadableError(ValueError):
    """A value that strict clients cannot parse and that cannot be repaired."""


@dataclass(slots=True)
class Notes:
    """The notes about all repairs of one value."""

    made: list[str] = field(default_factory=list)

    def add(self, path: str, what: str) -> None:
        """Add a note about one repair."""
        self.made.append(f"{path[:_LONGEST_PATH]} {what}".strip())

    @property
    def text(self) -> str:
        """All notes, truncated to `LONGEST_NOTES`; empty if nothing was repaired."""
        text = "; ".join(self.made)
        return text if len(text) <= LONGEST_NOTES else text[: LONGEST_NOTES - 1] + "…"


Reader = Callable[[Any, str, Notes], Any]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object, and its reader.

    An object without a `needed` member is rejected. A `spare` member is omitted if it cannot be
    read.
    """

    reader: Reader
    needed: bool = False
    spare: bool = False


def text(value: Any, path: str, _notes: Notes) -> str:
    """Return the value if it is a string. Raises `UnreadableError`."""
    return value if isinstance(value, str) else _reject(path, "must be a string", value)


def flag(value: Any, path: str, _notes: Notes) -> bool:
    """Return the value if it is a boolean. Raises `UnreadableError`."""
    return value if isinstance(value, bool) else _reject(path, "must be true or false", value)


def whole(value: Any, path: str, _notes: Notes) -> Any:
    """Return the value if it is an integer. Raises `UnreadableError`."""
    fits = isinstance(value, int) and not isinstance(value, bool)
    return value if fits else _reject(path, "must be an integer", value)


def share(value: Any, path: str, _notes: Notes) -> Any:
    """Return the value if it is a number from 0 to 1. Raises `UnreadableError`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = is_number and math.isfinite(value) and 0 <= value <= 1
    return value if fits else _reject(path, "must be a number from 0 to 1", value)


def moment(value: Any, path: str, _notes: Notes) -> str:
    """Return the value if it is an ISO 8601 time with an offset. Raises `UnreadableError`."""
    found = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if found is None or not _is_date(found[1]):
        _reject(path, "must be an ISO 8601 time with an offset", value)
    return str(value)


def one_of(*words: str) -> Reader:
    """Return a reader that accepts one of these strings."""

    def read(value: Any, path: str, _notes: Notes) -> str:
        if not isinstance(value, str) or value not in words:
            _reject(path, f"must be one of {', '.join(words)}", value)
        return str(value)

    return read


def list_of(reader: Reader, *, spare: bool = False, maximum: int | None = None) -> Reader:
    """Return a reader of a list with at most `maximum` items.

    The reader omits unreadable items if `spare` is set, and rejects the list otherwise.
    """

    def read(value: Any, path: str, notes: Notes) -> list[Any]:
        if value == {} and isinstance(value, dict):
            notes.add(path, "was {} and is []")
            value = []
        if not isinstance(value, list):
            _reject(path, "must be a list", value)
        if maximum is not None and len(value) > maximum:
            raise UnreadableError(f"{path} has more than {maximum} items")
        readable = []
        for number, each in enumerate(value):
            at = f"{path}[{number}]"
            try:
                readable.append(reader(each, at, notes))
            except UnreadableError:
                if not spare:
                    raise
                notes.add(at, "cannot be read and was left out")
        return readable

    return read


def open_object(value: Any, path: str, notes: Notes) -> dict[str, Any]:
    """Return an object with any members. Raises `UnreadableError`."""
    if value == [] and isinstance(value, list):
        notes.add(path, "was [] and is {}")
        return {}
    return value if isinstance(value, dict) else _reject(path, "must be an object", value)


def object_of(members: Mapping[str, Member]) -> Reader:
    """Return a reader of an object.

    It reads the members in `members` and copies all other members.
    """

    def read(value: Any, path: str, notes: Notes) -> dict[str, Any]:
        found = dict(open_object(value, path, notes))
        prefix = f"{path}." if path else ""
        for name, member in members.items():
            _read_member(found, name, member, prefix + name, notes)
        return found

    return read


def _read_member(found: dict[str, Any], name: str, member: Member, path: str, notes: Notes) -> None:
    if name in found and found[name] is None:
        del found[name]
        notes.add(path, "was null and was left out")
    if name not in found:
        if member.needed:
            raise UnreadableError(f"it has no {path}")
        return
    try:
        found[name] = member.reader(found[name], path, notes)
    except UnreadableError as error:
        if not member.spare:
            raise
        del found[name]
        notes.add("", f"{error}: left out")


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _reject(path: str, wanted: str, value: Any) -> Any:
    """Raise an error that contains the type of a value, but never the value."""
    kind = next((name for known, name in _KINDS if isinstance(value, known)), "null")
    raise UnreadableError(f"{path[:_LONGEST_PATH]} {wanted}; it is {kind}")


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (str, "a string"),
    ((int, float), "a number"),
    (dict, "an object"),
    (list, "a list"),
)
