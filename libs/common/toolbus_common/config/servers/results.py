"""What becomes of results: how large they may be, how long large ones are kept."""

from typing import Literal

from pydantic import Field

from toolbus_common.config.base import ConfigModel

USUAL_LIMIT = 6 << 20  # bytes; what fits a message
USUAL_LARGEST = 256 << 20
LONGEST_TTL = 3600.0  # seconds; the store forgets then


class Results(ConfigModel):
    """A server's results.

    One of more than `limit` bytes is kept for `ttl` seconds, and its caller told how it begins and
    how to read it; one of more than `largest` is an error.
    """

    limit: int = Field(default=USUAL_LIMIT, ge=64 << 10, le=USUAL_LIMIT)
    largest: int = Field(default=USUAL_LARGEST, ge=USUAL_LIMIT, le=512 << 20)
    ttl: float = Field(default=LONGEST_TTL, ge=10, le=LONGEST_TTL)


class ToolCache(ConfigModel):
    """The operator's word that a tool only reads, so that its answers hold for `ttl` seconds.

    `private` answers are told to the key they were given to, `public` ones to every key that may
    call the tool. A server's own word is not taken for it.
    """

    ttl: float = Field(gt=0, le=24 * 3600)
    scope: Literal["private", "public"] = "private"
