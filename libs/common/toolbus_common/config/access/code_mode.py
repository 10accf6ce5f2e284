"""Whether tools are shown through programs, and what one program may use."""

from pydantic import Field

from toolbus_common.config.base import ConfigModel


class Programs(ConfigModel):
    """`code_mode` at length: `shown` is what `true` and `false` say, the others are caps.

    They hold for one program: dollars its calls may cost together, their number, seconds.
    """

    shown: bool | None = None
    usd: float | None = Field(default=None, ge=0, le=1_000_000)
    calls: int | None = Field(default=None, ge=1, le=10_000)
    seconds: float | None = Field(default=None, gt=0, le=600)
