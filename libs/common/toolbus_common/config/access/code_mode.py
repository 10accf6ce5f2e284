"""Code mode: whether tools are used through programs, and the limits of one program."""

from pydantic import Field

from toolbus_common.config.base import ConfigModel


class Programs(ConfigModel):
    """The long form of `code_mode`: `shown` is its `true` or `false`, the others are limits.

    They apply to one program: the dollars its calls may cost together, their number, and seconds.
    """

    shown: bool | None = None
    usd: float | None = Field(default=None, ge=0, le=1_000_000)
    calls: int | None = Field(default=None, ge=1, le=10_000)
    seconds: float | None = Field(default=None, gt=0, le=600)
