"""Cache of values computed from principals, valid while the principal object is unchanged."""

from collections.abc import Hashable
from typing import Generic, TypeVar

from toolbus_common.access.principal import Principal

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class PrincipalCache(Generic[K, V]):
    """Values by key, each bound to one principal object. A full cache is cleared."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._values: dict[K, tuple[Principal, V]] = {}

    def get(self, key: K, principal: Principal) -> V:
        """Return the cached value. Raises `KeyError` if this principal object has no value."""
        owner, value = self._values[key]
        if owner is not principal:
            raise KeyError(key)
        return value

    def put(self, key: K, principal: Principal, value: V) -> V:
        """Store a value and return it."""
        if len(self._values) >= self._maximum:
            self._values.clear()
        self._values[key] = (principal, value)
        return value
