"""The interface of secret stores."""

from typing import Protocol


class Store(Protocol):
    """One kind of store. It may block: it is called in threads, several at once."""

    def read(self, path: str) -> str:
        """Return the secret at a path; several fields as one JSON object.

        Raises:
            SecretError: the secret cannot be read; the message says what to do.

        """
        ...
