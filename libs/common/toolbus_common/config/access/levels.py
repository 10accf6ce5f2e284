"""Levels of the hierarchy: customers, teams, users, keys, and named groups of patterns."""

from typing import Literal, Self

from pydantic import Field, model_validator

from toolbus_common.config.access.code_mode import Programs
from toolbus_common.config.access.expiry import Expiry, expired
from toolbus_common.config.access.limits import Budget, Loop, Rate
from toolbus_common.config.audit.retention import Retention
from toolbus_common.config.base import ConfigModel, Name, Patterns

Content = Literal["full", "redacted", "digest"]


class Group(ConfigModel):
    """Named patterns, granted (`tools`) or denied (`deny`) at every level that has the group.

    A group without `tools` only denies what `deny` matches. With `scope` the group is also an OAuth
    scope, which a client requests `first`, or `later` when it needs these tools.
    """

    tools: Patterns | None = None
    deny: Patterns = ()
    scope: Literal["first", "later"] | None = None

    @model_validator(mode="after")
    def _is_plain_scope(self) -> Self:
        if self.scope and (self.tools is None or self.deny):
            raise ValueError(
                "has 'scope', so it needs 'tools' and cannot have 'deny': a scope can only grant"
            )
        return self


class Level(ConfigModel):
    """Fields that every level can have.

    `tools` and the tools of `groups` together restrict everything below; a level with neither adds
    no restriction. `deny` overrides every grant. Calls that match `approve` wait for approval.
    `code_mode` requires the use of tools through programs (true), or forbids it (false). If it is
    not set, a request may choose. `code_mode` can also limit each program.

    `content` is how much of a call's arguments is recorded, `result_content` how much of its
    result. The strictest value of all levels, the environment and the server applies.
    `validation: strict` rejects calls whose arguments do not match their tool's schema, even if the
    server's own setting does not.
    """

    tools: Patterns | None = None
    groups: tuple[Name, ...] = ()
    deny: Patterns = ()
    approve: Patterns = ()
    budget: Budget | None = None
    budgets: tuple[Budget, ...] = Field(default=(), max_length=16)
    rate: Rate | None = None
    rates: tuple[Rate, ...] = Field(default=(), max_length=16)
    loop: Loop | None = None
    environment: str = Field(default="", max_length=64)
    expires: Expiry | None = None
    content: Content | None = None
    result_content: Content | None = None
    code_mode: bool | Programs | None = None
    validation: Literal["strict"] | None = None

    @property
    def through_programs(self) -> bool | None:
        """Whether tools are used through programs; None if this level does not set it."""
        mode = self.code_mode
        return mode.shown if isinstance(mode, Programs) else mode

    def expired(self, now: float) -> bool:
        """Return whether this level has expired."""
        return expired(self.expires, now)

    @property
    def all_budgets(self) -> tuple[Budget, ...]:
        """All budgets of this level."""
        return (self.budget, *self.budgets) if self.budget else self.budgets

    @property
    def all_rates(self) -> tuple[Rate, ...]:
        """All rates of this level."""
        return (self.rate, *self.rates) if self.rate else self.rates


class Customer(Level):
    """A paying customer: the level above teams and users. `retention` applies to its events."""

    retention: Retention | None = None


class Environment(ConfigModel):
    """Settings for every level that names this environment."""

    content: Content | None = None
    result_content: Content | None = None


class Team(Level):
    """A team of a customer."""

    customer: str = ""


class User(Level):
    """A person, independent of teams: all keys of the person share these limits."""

    customer: str = ""


class KeyTerms(Level):
    """The terms of a key. Without `tools` or `groups` it has no access.

    `rights` are the tasks of operators that the holder may do: deciding approvals. `auto_execute`
    matches the tools that an agent loop may run without asking its client; all others are explicit.
    """

    team: str = ""
    user: str = ""
    rights: tuple[Literal["approve"], ...] = ()
    auto_execute: Patterns = ()


class Key(KeyTerms):
    """A virtual key. `secret_hash` is SHA-256 of SHA-256 of the secret, in hex."""

    secret_hash: str = Field(default="", repr=False)
    revoked: bool = False
