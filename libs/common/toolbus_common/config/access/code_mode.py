"""Code mode: whether tools are used through programs, and the limits of one program."""

from pydantic import Field

from toolbus_common.config.base import ConfigModel


class Programs(ConfigModel):
    """The long form of `code_mode`.

    `shown` is the `true` or `false` of the short form. The other fields limit one program: the
    dollars that its calls may cost in total, the number of its calls, and its seconds.
    """

    shown: bool | None = None
    usd: float | None = Field(default=None, ge=0, le=1_000_000)
    calls: int | None = Field(default=None, ge=1, le=10_000)
    seconds: float | None = Field(default=None, gt=0, le=600)
