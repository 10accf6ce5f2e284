"""What operators declare: servers, keys, teams, customers, prices. Checked whole, stored whole."""

import re
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MICRO = 1_000_000  # micro-dollars in a dollar

# At most 32 characters, and never two underscores in a row: those separate server from tool.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,31}$")]


class Declared(BaseModel):
    """A declared thing: unknown fields are mistakes, and said to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Period(StrEnum):
    """Calendar-aligned in UTC; weeks begin on Monday."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Budget(Declared):
    """So many dollars per period."""

    usd: float = Field(ge=0)
    per: Literal[Period.HOUR, Period.DAY, Period.WEEK, Period.MONTH]

    @property
    def micro(self) -> int:
        """The limit in micro-dollars."""
        return round(self.usd * MICRO)


class Rate(Declared):
    """So many calls per period, evened out by GCRA with a burst of the same size."""

    calls: int = Field(ge=1)
    per: Literal[Period.SECOND, Period.MINUTE, Period.HOUR, Period.DAY]


class ToolView(Declared):
    """How agents see a tool: under an alias, with another description, or not at all.

    Grants, prices and facts keep to the name its server gave it.
    """

    alias: str = ""
    description: str = Field(default="", max_length=4096)
    hidden: bool = False

    @field_validator("alias")
    @classmethod
    def _is_a_name(cls, alias: str) -> str:
        if alias and (not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", alias) or "__" in alias):
            raise ValueError(
                "must be 1 to 64 letters, digits, '-' or '_', without two '_' in a row"
            )
        return alias


class Server(Declared):
    """An upstream MCP server: `url` for streamable HTTP, `command` for stdio, `sse` for HTTP+SSE.

    `timeout` is seconds per call, `concurrency` calls at once. Values of `headers` and `env`
    may be `${env:NAME}`, resolved by the executor and nowhere else.
    """

    url: str = ""
    sse: str = ""
    headers: dict[str, str] = {}
    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str = ""
    tools: dict[str, ToolView] = {}  # by the server's own names
    timeout: float = Field(default=30.0, gt=0, le=3600)
    concurrency: int = Field(default=64, ge=1, le=4096)

    @field_validator("url", "sse")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if url and not re.match(r"^https?://[^/\s]+", url):
            raise ValueError("must begin with http:// or https:// and name a host")
        return url

    @field_validator("tools")
    @classmethod
    def _differ(cls, tools: dict[str, ToolView]) -> dict[str, ToolView]:
        owners: dict[str, str] = {}
        for own, view in tools.items():
            if view.hidden:
                continue
            name = view.alias or own
            before = owners.setdefault(name, own)
            if before != own:
                raise ValueError(
                    f"{before} and {own} would both be called {name}; give one another alias"
                )
        return tools

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if [bool(self.url), bool(self.command), bool(self.sse)].count(True) != 1:
            raise ValueError(
                "needs exactly one of url (streamable HTTP), command (stdio) or sse (HTTP+SSE)"
            )
        if self.command and self.headers:
            raise ValueError("headers belong to a url or sse, env to a command")
        return self


class Customer(Declared):
    """Who pays: the level above teams."""

    budget: Budget | None = None
    rate: Rate | None = None


class Team(Declared):
    """A team of a customer. Its tools bound those of its keys; without any it adds no bound."""

    customer: str = ""
    tools: tuple[str, ...] | None = None
    budget: Budget | None = None
    rate: Rate | None = None


class Key(Declared):
    """A virtual key. `secret_hash` is SHA-256 of SHA-256 of the secret, in hex."""

    team: str = ""
    tools: tuple[str, ...] = ()
    budget: Budget | None = None
    rate: Rate | None = None
    expires: date | None = None
    secret_hash: str = Field(default="", repr=False)
    revoked: bool = False

    def expired(self, now: float) -> bool:
        """Whether the key's last day has ended, in UTC."""
        return self.expires is not None and datetime.fromtimestamp(now, UTC).date() > self.expires


class Declaration(Declared):
    """A whole configuration, stored as one entry so that it is never half applied."""

    servers: dict[Name, Server] = {}
    customers: dict[Name, Customer] = {}
    teams: dict[Name, Team] = {}
    keys: dict[Name, Key] = {}
    prices: dict[str, Annotated[float, Field(ge=0)]] = {}
