"""Limits and prices: budgets in money or calls, rates, loop detection, prices of calls."""

from enum import StrEnum
from typing import Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, field_validator, model_validator

from toolbus_common.config.base import MICRO, ConfigModel, Patterns


class Period(StrEnum):
    """Lengths of time; weeks begin on Monday."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Budget(ConfigModel):
    """A maximum of dollars, or of calls, per period.

    A period is a calendar period in `timezone` (an IANA name). If `rolling` is set, the period is
    the last hour, day, week or 30 days. Tool calls and model requests count together. With `tools`,
    only the tools that match count; with `models`, only the models that match, by `provider/model`
    or by an alias that contains the model. With both, the tools and the models that match count.
    """

    usd: float | None = Field(default=None, ge=0, le=1_000_000_000)
    calls: int | None = Field(default=None, ge=0, le=1_000_000_000_000)
    per: Literal[Period.HOUR, Period.DAY, Period.WEEK, Period.MONTH]
    rolling: bool = False
    timezone: str = "UTC"
    tools: Patterns = ()
    models: Patterns = ()

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, timezone: str) -> str:
        if timezone != "UTC" and timezone not in available_timezones():
            raise ValueError("must be an IANA name such as Europe/Berlin")
        return timezone

    @model_validator(mode="after")
    def _has_one_unit(self) -> Self:
        if (self.usd is None) == (self.calls is None):
            raise ValueError("needs exactly one of 'usd' and 'calls'")
        if self.rolling and self.timezone != "UTC":
            raise ValueError("is 'rolling', so it cannot have 'timezone'; remove one of them")
        return self

    @property
    def limit(self) -> int:
        """The limit in micro-dollars, or in calls."""
        return round(self.usd * MICRO) if self.usd is not None else int(self.calls or 0)

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the calendar periods."""
        return ZoneInfo(self.timezone)


class Rate(ConfigModel):
    """A maximum of calls, or of tokens, per period. GCRA enforces it, with a burst of the maximum.

    Only model requests have tokens. A request counts with the most tokens that it can have: its
    input, estimated from its size, and its limit of output tokens. The count is not corrected by
    the tokens that the provider reports.
    """

    calls: int | None = Field(default=None, ge=1, le=1_000_000_000)
    tokens: int | None = Field(default=None, ge=1, le=1_000_000_000_000)
    per: Literal[Period.SECOND, Period.MINUTE, Period.HOUR, Period.DAY]

    @model_validator(mode="after")
    def _has_one_unit(self) -> Self:
        if (self.calls is None) == (self.tokens is None):
            raise ValueError("needs exactly one of 'calls' and 'tokens'")
        return self

    @property
    def limit(self) -> int:
        """The maximum of calls, or of tokens, per period."""
        return self.calls or self.tokens or 0


class Loop(ConfigModel):
    """A maximum of identical calls (same tool and arguments) within `seconds` of one agent run."""

    calls: int = Field(ge=1, le=1000)
    seconds: int = Field(default=60, ge=1, le=3600)


class Price(ConfigModel):
    """The price of a call in dollars: per call, per kilobyte and per token of its result.

    `maximum` is the amount reserved before a call whose price depends on its result. It is
    also the maximum charge.
    """

    call: float = Field(default=0, ge=0, le=1_000_000)
    kilobyte: float = Field(default=0, ge=0, le=1_000_000)
    token: float = Field(default=0, ge=0, le=1_000_000)
    maximum: float | None = Field(default=None, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if self.maximum is None and (self.kilobyte or self.token):
            raise ValueError("needs 'maximum', the dollars to reserve before the call is made")
        if self.maximum is not None and self.maximum < self.call:
            raise ValueError("has 'maximum' below 'call'; raise 'maximum'")
        return self
