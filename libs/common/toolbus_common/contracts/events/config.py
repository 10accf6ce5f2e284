"""Events about what is declared: keys that came and went, and every entry that changed."""

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from pydantic import Field

from toolbus_common.contracts.events.base import Event

PEOPLES = {"users": "user", "admins": "admin"}  # sections whose entries are people's


class KeyCreated(Event):
    """A key exists; its secret is known to its holder alone."""

    NAME: ClassVar[str] = "key.created"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    key: str
    by: str = ""


class KeyRevoked(Event):
    """A key no longer opens anything."""

    NAME: ClassVar[str] = "key.revoked"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    key: str
    by: str = ""


class ConfigApplied(Event):
    """A declared configuration took effect; `revision` is its number in the bucket.

    `changes` are entries and their signs; of those that are people's, how many.
    """

    NAME: ClassVar[str] = "config.applied"
    PERSON: ClassVar[str] = "by"
    KIND: ClassVar[str] = "operator"

    revision: int
    by: str = ""
    changes: dict[str, Any] = Field(default_factory=dict)


class ConfigChanged(Event):
    """One entry of what is declared became another: `before` and `after` are JSON, empty for none.

    Credentials are struck out; of a key's hash there is the beginning of its digest. `revision` is
    the declaration's, and 0 for what is kept beside it (keys made one by one).
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
        """Never surely: its entry may be a person's."""
        return False

    @property
    def people(self) -> Mapping[str, str]:
        """An entry that is a person's is named after the person."""
        named = super().people
        return {**named, "name": person} if (person := self._entrys) else named

    @property
    def content(self) -> Mapping[str, str]:
        """An entry that is a person's, or says whose it is, is sealed as that person's."""
        if person := self._entrys:
            return dict.fromkeys(("before", "after"), person)
        told = {field: _user_in(getattr(self, field)) for field in ("before", "after")}
        return {field: f"user:{user}" for field, user in told.items() if user}

    @property
    def _entrys(self) -> str:
        kind = PEOPLES.get(self.kind)
        return f"{kind}:{self.name}" if kind else ""


def _user_in(entry: str) -> str:
    """Whose an entry says it is."""
    if '"user"' not in entry:
        return ""
    try:
        told = msgspec.json.decode(entry)
    except msgspec.DecodeError:  # it was cut: whoever it is, the text is sealed
        return "unknown"
    return str(told.get("user", "")) if isinstance(told, dict) else ""
