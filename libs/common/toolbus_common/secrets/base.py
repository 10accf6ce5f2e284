"""The interface of secret stores."""

from typing import Protocol


class Store(Protocol):
    """One kind of store. Its methods may block, and several threads call them concurrently."""

    def read(self, path: str) -> str:
        """Return the secret at a path; several fields as one JSON object.

        Raises:
            SecretError: the secret cannot be read; the message says what to do.

        """
        ...
