"""The interface of key services, whose keys never leave them and wrap other keys."""

from typing import Protocol


class KeyService(Protocol):
    """One kind of key service. It may block: it is called in a thread."""

    def wrap(self, path: str, key: bytes) -> bytes:
        """Encrypt a key with the service's key `path`.

        Raises:
            SecretError: the service failed; the message says what to do.

        """
        ...

    def unwrap(self, path: str, wrapped: bytes) -> bytes:
        """Decrypt a wrapped key.

        Raises:
            SecretError: the service failed; the message says what to do.

        """
        ...
