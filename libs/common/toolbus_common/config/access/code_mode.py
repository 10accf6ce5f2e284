"""Code mode: use of tools through programs, and the limits of one program."""

from pydantic import Field

from toolbus_common.config.base import ConfigModel


class Programs(ConfigModel):
    """The long form of `code_mode`.

    `shown` has the meaning of the short form (`true` or `false`). The other fields limit one
    program: `usd` is the maximum total cost of its calls, `calls` is the maximum number of its
    calls, and `seconds` is its maximum duration.
    """

    shown: bool | None = None
    usd: float | None = Field(default=None, ge=0, le=1_000_000)
    calls: int | None = Field(default=None, ge=1, le=10_000)
    seconds: float | None = Field(default=None, gt=0, le=600)
