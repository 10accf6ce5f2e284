"""What keeps keys that never leave it, and wraps others with them."""

from typing import Protocol


class KeyService(Protocol):
    """One kind of key service. It may block: it is asked in a thread."""

    def wrap(self, path: str, key: bytes) -> bytes:
        """The key, for the service's own key `path` alone to open.

        Raises:
            SecretError: it cannot be done, and what to do.

        """
        ...

    def unwrap(self, path: str, wrapped: bytes) -> bytes:
        """The key that was wrapped.

        Raises:
            SecretError: it cannot be done, and what to do.

        """
        ...
