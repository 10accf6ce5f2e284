"""Interface of secret stores."""

from typing import Protocol


class Store(Protocol):
    """A kind of secret store. Its methods may block, and several threads call them concurrently."""

    def read(self, path: str) -> str:
        """Return the secret at a path. Several fields are returned as one JSON object.

        Raises:
            SecretError: the secret cannot be read. The message contains the fix.

        """
        ...
