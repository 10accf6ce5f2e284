"""What reads secrets of one kind of store."""

from typing import Protocol


class Store(Protocol):
    """One kind of store. It may block: it is asked in a thread, and by several at once."""

    def read(self, path: str) -> str:
        """What is kept there; several fields as one JSON object.

        Raises:
            SecretError: it cannot be had, and what to do.

        """
        ...
