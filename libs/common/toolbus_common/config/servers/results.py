"""Results: maximum sizes, storage of large results, response cache."""

from typing import Literal

from pydantic import Field

from toolbus_common.config.base import ConfigModel

USUAL_LIMIT = 6 << 20  # bytes; what fits a message
USUAL_LARGEST = 256 << 20
LONGEST_TTL = 3600.0  # seconds; the object store then deletes them


class Results(ConfigModel):
    """Limits of a server's results, in bytes, and the storage of large results.

    A result of more than `limit` bytes is stored for `ttl` seconds; the caller receives its
    beginning and a URI to read the rest. A result of more than `largest` bytes is an error.
    """

    limit: int = Field(default=USUAL_LIMIT, ge=64 << 10, le=USUAL_LIMIT)
    largest: int = Field(default=USUAL_LARGEST, ge=USUAL_LIMIT, le=512 << 20)
    ttl: float = Field(default=LONGEST_TTL, ge=10, le=LONGEST_TTL)


class ToolCache(ConfigModel):
    """The operator's statement that a tool only reads, so that its results are cached for `ttl`.

    `ttl` is in seconds. `private` results are returned to the same key only, `public` ones to every
    key that may call the tool. Hints of the server are not sufficient for caching.
    """

    ttl: float = Field(gt=0, le=24 * 3600)
    scope: Literal["private", "public"] = "private"
