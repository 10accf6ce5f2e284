"""Events about configuration: keys created and revoked, and every changed entry."""

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from pydantic import Field

from toolbus_common.contracts.events.base import Event

PERSON_KINDS = {"users": "user", "admins": "admin"}  # sections whose entries describe people


class KeyCreated(Event):
    """A key was created by the operator `by`. The event does not contain the secret."""

    NAME: ClassVar[str] = "key.created"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    key: str
    by: str = ""


class KeyRevoked(Event):
    """A key was revoked by the operator `by`: it has no access."""

    NAME: ClassVar[str] = "key.revoked"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    key: str
    by: str = ""


class ConfigApplied(Event):
    """A configuration was applied by the operator `by`; `revision` is its revision in the bucket.

    `changes` lists the changed entries with their signs (`+`, `-`, `~`); for entries that describe
    people it has only their number.
    """

    NAME: ClassVar[str] = "config.applied"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    revision: int
    by: str = ""
    changes: dict[str, Any] = Field(default_factory=dict)


class ConfigChanged(Event):
    """One entry of the configuration changed: `before` and `after` are JSON, empty for no entry.

    `kind` is the section and `name` the entry; `by` is the operator. Credentials are redacted; for
    a key's hash the first digits of its digest are shown. `revision` is that of the configuration,
    and 0 for entries stored separately (individually created keys).
    """

    NAME: ClassVar[str] = "config.changed"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    kind: str
    name: str
    by: str = ""
    revision: int = 0
    before: str = ""
    after: str = ""

    @property
    def impersonal(self) -> bool:
        """Return False, because the entry may describe a person."""
        return False

    @property
    def people(self) -> Mapping[str, str]:
        """The persons named by the event; an entry that describes a person has that name."""
        named = super().people
        return {**named, "name": person} if (person := self._entry_person) else named

    @property
    def content(self) -> Mapping[str, str]:
        """The fields that contain the entry, with the person whose key encrypts each."""
        if person := self._entry_person:
            return dict.fromkeys(("before", "after"), person)
        users = {field: _user_in(getattr(self, field)) for field in ("before", "after")}
        return {field: f"user:{user}" for field, user in users.items() if user}

    @property
    def _entry_person(self) -> str:
        kind = PERSON_KINDS.get(self.kind)
        return f"{kind}:{self.name}" if kind else ""


def _user_in(entry: str) -> str:
    """Return the user that an entry names; empty without one, `unknown` if it is truncated."""
    if '"user"' not in entry:
        return ""
    try:
        value = msgspec.json.decode(entry)
    except msgspec.DecodeError:  # it was truncated: encrypt it for an unknown user
        return "unknown"
    return str(value.get("user", "")) if isinstance(value, dict) else ""
