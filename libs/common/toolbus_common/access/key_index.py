"""Immutable indexes of keys by name and by secret hash. A copy costs only the changed entries."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from toolbus_common.config import Key

V = TypeVar("V")


class LayeredMapping(Mapping[str, V]):
    """An immutable mapping of two layers: a base, and the changed entries above the base.

    Copies share the base. When the number of changed entries exceeds the square root of the size of
    the base, both layers are merged into a new base.
    """

    __slots__ = ("_above", "_below")

    def __init__(
        self, below: dict[str, V] | None = None, above: dict[str, V | None] | None = None
    ) -> None:
        self._below = below or {}
        self._above = above or {}

    def changed(self, entries: Mapping[str, V | None]) -> "LayeredMapping[V]":
        """Return a copy with these entries changed; the value None removes an entry."""
        above = {**self._above, **entries}
        if len(above) ** 2 <= len(self._below):
            return LayeredMapping(self._below, above)
        below = self._below.copy()
        for name, value in above.items():
            if value is None:
                below.pop(name, None)
            else:
                below[name] = value
        return LayeredMapping(below)

    def __getitem__(self, name: str) -> V:
        """Return the value of a name. Raises `KeyError`."""
        found = self._above[name] if name in self._above else self._below.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        yield from (name for name in self._below if name not in self._above)
        yield from (name for name, value in self._above.items() if value is not None)

    def __len__(self) -> int:
        """Return the number of entries."""
        above = self._above.items()
        more = sum((value is not None) - (name in self._below) for name, value in above)
        return len(self._below) + more


@dataclass(frozen=True, slots=True, eq=False)
class KeyIndex(Mapping[str, Key]):
    """Keys by name, and the names of the keys by secret hash."""

    _keys: LayeredMapping[Key] = field(default_factory=LayeredMapping)
    _owners: LayeredMapping[tuple[str, ...]] = field(default_factory=LayeredMapping)

    def changed(self, keys: Mapping[str, Key | None]) -> "KeyIndex":
        """Return a copy with these keys changed; the value None removes a key."""
        owners: dict[str, tuple[str, ...]] = {}
        for name, key in keys.items():
            before = self._keys.get(name)
            if before is not None:
                names = self._named(before.secret_hash, owners)
                owners[before.secret_hash] = tuple(each for each in names if each != name)
            if key is not None:
                names = self._named(key.secret_hash, owners)
                owners[key.secret_hash] = (*names, name)
        owners.pop("", None)  # keys without a secret have no entry
        found = {secret: tuple(sorted(names)) or None for secret, names in owners.items()}
        return KeyIndex(self._keys.changed(keys), self._owners.changed(found))

    def owner(self, secret_hash: str) -> str | None:
        """Return the name of the key with this secret hash; None if no key matches.

        If several keys match, return the first name in alphabetical order.
        """
        names = self._owners.get(secret_hash)
        return names[0] if names else None

    def _named(self, secret_hash: str, changed: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
        return changed[secret_hash] if secret_hash in changed else self._owners.get(secret_hash, ())

    def __getitem__(self, name: str) -> Key:
        """Return the key with this name. Raises `KeyError`."""
        return self._keys[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._keys)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._keys)
