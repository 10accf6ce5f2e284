"""Levels of the hierarchy: customers, teams, users, keys, and named groups of patterns."""

from typing import Literal, Self

from pydantic import Field, model_validator

from toolbus_common.config.access.agent_mode import AgentMode, Injection
from toolbus_common.config.access.code_mode import Programs
from toolbus_common.config.access.expiry import Expiry, expired
from toolbus_common.config.access.limits import Budget, Loop, Rate
from toolbus_common.config.audit.retention import Retention
from toolbus_common.config.base import ConfigModel, Name, Patterns, Region
from toolbus_common.config.flow import Flow

Content = Literal["full", "redacted", "digest"]
# The widest group of callers that share cached responses of models; `off` disables the cache.
CacheScope = Literal["off", "key", "user", "team", "customer"]


class Group(ConfigModel):
    """Named patterns that levels can refer to: `tools` and `models` are granted, `deny` is denied.

    A group without `tools` only denies the tools that match `deny`. `guards` apply to all calls of
    the levels that refer to the group. With `scope`, the group is also an OAuth scope: clients
    request it at the first sign-in (`first`), or when they need these tools (`later`).
    """

    tools: Patterns | None = None
    models: Patterns | None = None
    deny: Patterns = ()
    guards: tuple[Name, ...] = ()
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

    `tools` and the tools of `groups` together limit this level and all levels below. A level
    without both adds no restriction. `models` limits the models in the same way: their aliases, or
    their names `provider/model`. `deny` overrides every grant of tools. Tool calls that match
    `approve` wait for approval; `deny` and `approve` do not apply to models.

    `model_regions` permits only providers of models with one of these regions, and `model_labels`
    only those with all of these labels. If `model_regions` is set, a provider without a region is
    not permitted. All levels that set these fields apply.

    `code_mode` requires the use of tools through programs (true), or forbids it (false). If it is
    not set, each request can choose. `code_mode` can also limit each program.

    `content` sets how much of a call's arguments is recorded, and `result_content` sets how much of
    its result is recorded. The strictest value of all levels, the environment and the server
    applies.

    `validation: strict` rejects calls whose arguments do not match the schema of their tool, even
    if the server's own setting permits them.

    `guards` are names of guards that apply to all calls of this level. The guards of all levels
    apply together: no level can remove a guard of another.

    `flow` is the reaction if one run reads private and untrusted data and would then send data
    outside. The strictest value of all levels and of the configuration applies.

    `cache_scope` limits the callers that share cached responses of models, or disables the cache
    (`off`). The narrowest value of all levels and of the provider applies.
    """

    tools: Patterns | None = None
    models: Patterns | None = None
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
    model_regions: tuple[Region, ...] | None = Field(default=None, max_length=64)
    model_labels: tuple[Name, ...] = Field(default=(), max_length=64)
    guards: tuple[Name, ...] = Field(default=(), max_length=64)
    flow: Flow | None = None
    cache_scope: CacheScope | None = None

    @property
    def through_programs(self) -> bool | None:
        """Whether tools are used only through programs; None if this level does not set it."""
        mode = self.code_mode
        return mode.shown if isinstance(mode, Programs) else mode

    def expired(self, now: float) -> bool:
        """Return whether this level has expired."""
        return expired(self.expires, now)

    @property
    def all_budgets(self) -> tuple[Budget, ...]:
        """The budgets of `budget` and `budgets` together."""
        return (self.budget, *self.budgets) if self.budget else self.budgets

    @property
    def all_rates(self) -> tuple[Rate, ...]:
        """The rates of `rate` and `rates` together."""
        return (self.rate, *self.rates) if self.rate else self.rates


class Customer(Level):
    """A paying customer: the level above teams and users. `retention` applies to its events."""

    retention: Retention | None = None


class Environment(ConfigModel):
    """Settings for the recording of content, for every level that names this environment."""

    content: Content | None = None
    result_content: Content | None = None


class Team(Level):
    """A team of a customer."""

    customer: str = ""


class User(Level):
    """A person. All keys of the person share these limits."""

    customer: str = ""


class KeyTerms(Level):
    """The terms of a key.

    A key without `tools` and `groups` has no access to tools, and a key without `models` and
    `groups` has no access to models.
    `rights` are the operator's tasks that the holder may perform: `approve` decides on approvals.
    `auto_execute` matches the tools that an agent loop may run without a confirmation by the
    client. All other tools need this confirmation.
    `inject` adds tools to the key's model requests: the key's own `tools`, or the tools of code
    mode (`code`) or of tool search (`search`). A request can set it with `x-toolbus-inject`.
    `agent` enables agent mode: the gateway itself runs the suggested calls of `auto_execute` tools.
    """

    team: str = ""
    user: str = ""
    rights: tuple[Literal["approve"], ...] = ()
    auto_execute: Patterns = ()
    inject: Injection | None = None
    agent: AgentMode | None = None


class Key(KeyTerms):
    """A virtual key. `secret_hash` is SHA-256 of SHA-256 of the secret, in hex."""

    secret_hash: str = Field(default="", repr=False)
    revoked: bool = False
