"""Results: maximum sizes, storage of large results, and the response cache."""

from typing import Literal

from pydantic import Field

from toolbus_common.config.base import ConfigModel

USUAL_LIMIT = 6 << 20  # bytes; the maximum in one message
USUAL_LARGEST = 256 << 20
LONGEST_TTL = 3600.0  # seconds; the object store then deletes the result


class Results(ConfigModel):
    """Limits of a server's results, in bytes, and the storage of large results.

    A result of more than `limit` bytes is stored for `ttl` seconds. The caller receives the
    beginning of the result and a URI to read the rest. A result of more than `largest` bytes is an
    error.
    """

    limit: int = Field(default=USUAL_LIMIT, ge=64 << 10, le=USUAL_LIMIT)
    largest: int = Field(default=USUAL_LARGEST, ge=USUAL_LIMIT, le=512 << 20)
    ttl: float = Field(default=LONGEST_TTL, ge=10, le=LONGEST_TTL)


class ToolCache(ConfigModel):
    """A statement by the operator that a tool only reads data, so its results can be cached.

    Results are cached for `ttl` seconds. `private` results are returned only to the same key,
    `public` results to every key that is permitted to call the tool. Hints of the server never
    enable the cache.
    """

    ttl: float = Field(gt=0, le=24 * 3600)
    scope: Literal["private", "public"] = "private"
