"""Who pays and who may: customers, teams, users, keys, and named groups of patterns."""

from typing import Literal, Self

from pydantic import Field, model_validator

from toolbus_common.config.access.code_mode import Programs
from toolbus_common.config.access.expiry import Expiry, expired
from toolbus_common.config.access.limits import Budget, Loop, Rate
from toolbus_common.config.audit.retention import Retention
from toolbus_common.config.base import ConfigModel, Name, Patterns

Content = Literal["full", "redacted", "digest"]


class Group(ConfigModel):
    """Patterns under a name, to be granted (`tools`) or denied (`deny`) wherever it is attached.

    A group without `tools` only denies: it bounds nothing. With `scope` people can let a client
    use these tools alone: it asks for them `first`, or comes back for them `later`.
    """

    tools: Patterns | None = None
    deny: Patterns = ()
    scope: Literal["first", "later"] | None = None

    @model_validator(mode="after")
    def _is_plain_where_it_is_a_scope(self) -> Self:
        if self.scope and (self.tools is None or self.deny):
            raise ValueError("with a scope it needs tools, and no deny: scopes only add up")
        return self


class Level(ConfigModel):
    """What every level can hold.

    `tools` and the tools of `groups` together bound everything below; a level with neither adds
    no bound. `deny` wins over every grant. Calls that `approve` covers wait for a person.
    `code_mode` shows tools through programs (true), or never (false); unset, a request may ask.
    It may hold caps on one program as well.
    `content` says how much of a call's arguments is recorded, `result_content` of its result: the
    strictest word of all levels, the environment and the server counts. `validation: strict`
    refuses calls whose arguments do not fit the schema of their tool, whatever the server says.
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
        """Whether tools are shown through programs; None where this level leaves that open."""
        said = self.code_mode
        return said.shown if isinstance(said, Programs) else said

    def expired(self, now: float) -> bool:
        """Return whether this level has ended."""
        return expired(self.expires, now)

    @property
    def all_budgets(self) -> tuple[Budget, ...]:
        """Every budget of this level."""
        return (self.budget, *self.budgets) if self.budget else self.budgets

    @property
    def all_rates(self) -> tuple[Rate, ...]:
        """Every rate of this level."""
        return (self.rate, *self.rates) if self.rate else self.rates


class Customer(Level):
    """Who pays: the level above teams and users. `retention` is how long its events are kept."""

    retention: Retention | None = None


class Environment(ConfigModel):
    """What holds wherever a level names this environment."""

    content: Content | None = None
    result_content: Content | None = None


class Team(Level):
    """A team of a customer."""

    customer: str = ""


class User(Level):
    """A person, beside the teams: somebody's keys share the person's limits."""

    customer: str = ""


class KeyTerms(Level):
    """What a key is given. Without `tools` or `groups` it opens nothing.

    `rights` let its holder act for the operators: decide approvals. `auto_execute` covers the
    tools an agent loop may run without asking its client; everything else is explicit.
    """

    team: str = ""
    user: str = ""
    rights: tuple[Literal["approve"], ...] = ()
    auto_execute: Patterns = ()


class Key(KeyTerms):
    """A virtual key. `secret_hash` is SHA-256 of SHA-256 of the secret, in hex."""

    secret_hash: str = Field(default="", repr=False)
    revoked: bool = False
