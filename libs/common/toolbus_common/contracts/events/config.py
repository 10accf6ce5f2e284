"""Events about the configuration: created and revoked keys, and every changed entry."""

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from pydantic import Field

from toolbus_common.contracts.events.base import Event

PERSON_KINDS = {"users": "user", "admins": "admin"}  # sections whose entries describe people


class KeyCreated(Event):
    """The operator `by` created a key. The event does not contain the secret."""

    NAME: ClassVar[str] = "key.created"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    key: str
    by: str = ""


class KeyRevoked(Event):
    """The operator `by` revoked a key, which has no access any more."""

    NAME: ClassVar[str] = "key.revoked"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    key: str
    by: str = ""


class ConfigApplied(Event):
    """The operator `by` applied a configuration. `revision` is its revision in the bucket.

    `changes` contains the changed entries with their signs (`+`, `-`, `~`). For entries that
    describe people it contains only their number.
    """

    NAME: ClassVar[str] = "config.applied"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    revision: int
    by: str = ""
    changes: dict[str, Any] = Field(default_factory=dict)


class ConfigChanged(Event):
    """One entry of the configuration changed from `before` to `after`.

    Both are JSON, and empty if the entry does not exist. `kind` is the section, `name` is the
    entry, and `by` is the operator. Credentials are redacted. The hash of a key is replaced with
    the first digits of its digest. `revision` is the revision of the configuration, or 0 for
    entries that are stored separately (individually created keys).
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
        """Always false, because the entry can describe a person."""
        return False

    @property
    def people(self) -> Mapping[str, str]:
        """The persons that the event names. The name of an entry can be the name of a person."""
        named = super().people
        return {**named, "name": person} if (person := self._entry_person) else named

    @property
    def content(self) -> Mapping[str, str]:
        """The fields that contain the entry, each with the person whose key encrypts the field."""
        if person := self._entry_person:
            return dict.fromkeys(("before", "after"), person)
        users = {field: _user_in(getattr(self, field)) for field in ("before", "after")}
        return {field: f"user:{user}" for field, user in users.items() if user}

    @property
    def _entry_person(self) -> str:
        kind = PERSON_KINDS.get(self.kind)
        return f"{kind}:{self.name}" if kind else ""


def _user_in(entry: str) -> str:
    """Return the user that an entry names; empty without a user, `unknown` if it is truncated."""
    if '"user"' not in entry:
        return ""
    try:
        value = msgspec.json.decode(entry)
    except msgspec.DecodeError:  # truncated: encrypt it for an unknown user
        return "unknown"
    return str(value.get("user", "")) if isinstance(value, dict) else ""
