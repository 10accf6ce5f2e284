"""What is approved of definitions: the entries of the bucket tb_pins."""

from typing import Any

from pydantic import Field

from toolbus_common.contracts.base import Message


class Pin(Message):
    """What is approved of one tool or prompt; an empty `digest` approves nothing.

    `definition` is the approved one, whole, to compare with; `rejected` is the digest somebody
    said no to last. `at` is seconds since the epoch, `by` the operator or `first listing`.
    """

    digest: str = ""
    definition: dict[str, Any] = Field(default_factory=dict)
    rejected: str = ""
    by: str = ""
    at: float = 0.0


class FirstListing(Message):
    """A server's first listing, by which it is known from then on: entry of a pin -> digest.

    Whoever writes it first has seen the server first. It is empty where nothing was trusted.
    """

    digests: dict[str, str] = Field(default_factory=dict)
    at: float = 0.0
