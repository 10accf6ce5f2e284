"""What was worked out from keys' principals: it holds while a principal is the same object."""

from collections.abc import Hashable
from typing import Generic, TypeVar

from toolbus_common.access.principal import Principal

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memory(Generic[K, V]):
    """Values by what they are about. When it is full it begins anew."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[K, tuple[Principal, V]] = {}

    def recall(self, about: K, principal: Principal) -> V:
        """What was kept. Raises `KeyError` when nothing was, or not for this principal."""
        of, value = self._kept[about]
        if of is not principal:
            raise KeyError(about)
        return value

    def keep(self, about: K, principal: Principal, value: V) -> V:
        """Keep a value; it is given back."""
        if len(self._kept) >= self._most:
            self._kept.clear()
        self._kept[about] = (principal, value)
        return value
