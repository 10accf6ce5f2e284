"""Interface of key services. A key service wraps other keys with keys that never leave it."""

from typing import Protocol


class KeyService(Protocol):
    """A kind of key service. Its methods may block, so they are called in a thread."""

    def wrap(self, path: str, key: bytes) -> bytes:
        """Return the key, encrypted with the service's key at `path`.

        Raises:
            SecretError: the service failed. The message contains the fix.

        """
        ...

    def unwrap(self, path: str, wrapped: bytes) -> bytes:
        """Return the key that `wrap` encrypted.

        Raises:
            SecretError: the service failed. The message contains the fix.

        """
        ...
