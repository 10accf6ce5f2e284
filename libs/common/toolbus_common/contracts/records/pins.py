"""Approved definitions: entries of the bucket tb_pins."""

from typing import Any

from pydantic import Field

from toolbus_common.contracts.base import Message


class Pin(Message):
    """The approved definition of one tool or prompt; an empty `digest` approves nothing.

    `definition` is the whole approved definition, for comparison. `rejected` is the digest that an
    operator rejected last. `at` is in seconds since the epoch, `by` the operator or
    `first listing`.
    """

    digest: str = ""
    definition: dict[str, Any] = Field(default_factory=dict)
    rejected: str = ""
    by: str = ""
    at: float = 0.0


class FirstListing(Message):
    """A server's first listing, trusted from then on: names of pin entries with their digests.

    The first replica that writes it decides. It is empty if nothing was trusted.
    """

    digests: dict[str, str] = Field(default_factory=dict)
    at: float = 0.0
