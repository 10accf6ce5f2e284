"""Approved definitions: entries of the bucket tb_pins."""

from typing import Any

from pydantic import Field

from toolbus_common.contracts.base import Message
from toolbus_common.contracts.records.pin_names import NAMED


class Pin(Message):
    """The approved definition of one entry of a list. An empty `digest` approves no definition.

    `definition` is the whole approved definition, for comparison. `rejected` is the digest of the
    definition that an operator rejected last. `at` is in seconds since the epoch. `by` is the
    operator, or `first listing`.
    """

    digest: str = ""
    definition: dict[str, Any] = Field(default_factory=dict)
    rejected: str = ""
    by: str = ""
    at: float = 0.0


class FirstListing(Message):
    """The first listing of a server, which is trusted: keys of pin entries with their digests.

    The first replica that writes the entry decides. `digests` is empty if no definition was
    trusted. `incomplete` is set while the definitions that the server
    offers only to some clients are unknown. `kinds` are the kinds of definitions that it covers;
    the entries of earlier versions cover only tools and prompts. `later_resources` is set if
    resources that the server adds later are shown while their texts have no signals. `empty` is set
    while the server has not listed an entry: the first entries that it lists then belong to it.
    """

    digests: dict[str, str] = Field(default_factory=dict)
    at: float = 0.0
    incomplete: bool = False
    kinds: tuple[str, ...] = NAMED
    later_resources: bool = False
    empty: bool = False
