"""Limits and prices: budgets in money or calls, rates, repeated calls, what a call costs."""

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
    """So many dollars, or so many calls, per period.

    A period is the calendar's in `timezone` (an IANA name), or, when `rolling`, the last hour,
    day, week or month of 30 days. With `tools`, only calls these patterns cover count.
    """

    usd: float | None = Field(default=None, ge=0, le=1_000_000_000)
    calls: int | None = Field(default=None, ge=0, le=1_000_000_000_000)
    per: Literal[Period.HOUR, Period.DAY, Period.WEEK, Period.MONTH]
    rolling: bool = False
    timezone: str = "UTC"
    tools: Patterns = ()

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, timezone: str) -> str:
        if timezone != "UTC" and timezone not in available_timezones():
            raise ValueError("must be an IANA name such as Europe/Berlin")
        return timezone

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if (self.usd is None) == (self.calls is None):
            raise ValueError("needs exactly one of usd and calls")
        if self.rolling and self.timezone != "UTC":
            raise ValueError("needs no timezone when it is rolling")
        return self

    @property
    def limit(self) -> int:
        """The limit in micro-dollars, or in calls."""
        return round(self.usd * MICRO) if self.usd is not None else int(self.calls or 0)

    @property
    def zone(self) -> ZoneInfo:
        """The time zone its calendar periods are of."""
        return ZoneInfo(self.timezone)


class Rate(ConfigModel):
    """So many calls per period, evened out by GCRA with a burst of the same size."""

    calls: int = Field(ge=1, le=1_000_000_000)
    per: Literal[Period.SECOND, Period.MINUTE, Period.HOUR, Period.DAY]


class Loop(ConfigModel):
    """The same tool with the same arguments, `calls` times within `seconds` of one agent run."""

    calls: int = Field(ge=1, le=1000)
    seconds: int = Field(default=60, ge=1, le=3600)


class Price(ConfigModel):
    """What a call costs in dollars: for itself, per kilobyte and per token of its result.

    `most` is held before a call whose price depends on its result, and bounds what it is charged.
    """

    call: float = Field(default=0, ge=0, le=1_000_000)
    kilobyte: float = Field(default=0, ge=0, le=1_000_000)
    token: float = Field(default=0, ge=0, le=1_000_000)
    most: float | None = Field(default=None, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if self.most is None and (self.kilobyte or self.token):
            raise ValueError("needs most, the dollars held before the result is known")
        if self.most is not None and self.most < self.call:
            raise ValueError("has a most below its call")
        return self
