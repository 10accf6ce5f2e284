"""Cost of an admitted call, and the limits that apply to it (no I/O).

Calls share these objects as long as the configuration of their key is unchanged, so that each
property is computed once.
"""

from dataclasses import dataclass
from functools import cached_property

from toolbus_common.access import session_owner
from toolbus_common.access.anonymous import is_anonymous
from toolbus_common.access.pricing import FREE, Cost
from toolbus_common.access.principal import Principal
from toolbus_common.config import Content, Provider
from toolbus_common.config.guards.guard import Phase
from toolbus_policy.flow.terms import FlowTerms
from toolbus_policy.ledger.limits import BudgetLimit, LoopLimit, RateLimit


@dataclass(frozen=True)
class Payer:
    """A key with its hierarchy, and the limits of every level.

    `rates` limit all calls; `token_rates` limit the tokens of model requests.
    """

    principal: Principal
    team: str
    user: str
    budgets: tuple[BudgetLimit, ...]
    rates: tuple[RateLimit, ...]
    loops: tuple[LoopLimit, ...] = ()
    environment: str = ""
    id: str = ""  # principal id: selects the state at servers that calls may use
    token_rates: tuple[RateLimit, ...] = ()

    def id_for(self, key_digest: str) -> str:
        """Return the id of the principal whose state at servers a call may use.

        Each anonymous client has its own id.
        """
        return (
            session_owner.principal_id_of(self.principal, key_digest)
            if is_anonymous(key_digest)
            else self.id
        )

    @cached_property
    def key(self) -> str:
        """The key's name."""
        return self.principal.key

    @cached_property
    def customer(self) -> str:
        """The customer who pays."""
        return self.principal.customer


@dataclass(frozen=True)
class ModelTerms:
    """The terms of one model for one payer, before the size of a request is known.

    `name` is `provider/model`, and `names` are the names by which the payer may use the model.
    `aliases` are all its aliases.
    `prices` has the form of `CallAdmitted.price`; None if the model has no price. `budgets` are the
    budgets that count the model. `cache` is the encoded `CacheTerms`, and `embedding` is its price;
    both are empty if responses of the model are not cached.
    """

    provider: Provider
    name: str
    names: frozenset[str]
    prices: tuple[float, ...] | None
    budgets: tuple[BudgetLimit, ...]
    aliases: tuple[str, ...] = ()
    cache: str = ""
    embedding: tuple[float, ...] = ()


@dataclass(frozen=True)
class ModelSize:
    """The size of a model request, as limits and rules see it. Both bounds are in tokens.

    `alias` is the name by which the caller requested the model; empty for `provider/model`.
    `region` and `labels` are those of the provider; the region is empty if it states none.
    `sampled_by` is the server whose sampling request caused the request; else empty.
    """

    alias: str
    input: int
    output: int
    tools: int
    stream: bool
    region: str = ""
    labels: tuple[str, ...] = ()
    sampled_by: str = ""

    @property
    def tokens(self) -> int:
        """The most tokens that the request can have."""
        return self.input + self.output


@dataclass(frozen=True)
class CallGuards:
    """The names of the guards of a call.

    `checking` are the guards that check what the call sends, in the phase `phase`. `later` are the
    guards that check the result or restore values in the arguments. `has_placeholders` is set if
    one of these makes or restores placeholders. `decided` are the plugins that are asked after the
    decision.
    """

    phase: Phase
    checking: tuple[str, ...]
    later: tuple[str, ...]
    has_placeholders: bool = False
    decided: tuple[str, ...] = ()


@dataclass(frozen=True)
class Admission:
    """An authorized call: its payer, its cost, and the limits that apply to it.

    Calls without a price are not limited by budgets in money. Only tool calls and model requests
    count against budgets. `terms` are those of a model request; its cost and its budgets are known
    only with its `size` (`toolbus_policy.models.requests`). `cause` is the level that requires
    approval; else empty. `definition` is the digest of the tool or prompt as listed. `content` and
    `result_content` are the recorded forms of arguments and results. `strict` means that a level
    requires arguments to match their schema. `guards` is None if no guard applies, and
    `flow` is None if information flow does not concern the call.
    """

    payer: Payer
    cost: Cost = FREE
    budgets: tuple[BudgetLimit, ...] = ()
    loops: tuple[LoopLimit, ...] = ()
    cause: str = ""
    definition: str = ""
    content: Content = "digest"
    result_content: Content = "digest"
    strict: bool = False
    terms: ModelTerms | None = None
    size: ModelSize | None = None
    guards: CallGuards | None = None
    flow: FlowTerms | None = None

    @cached_property
    def is_checked(self) -> bool:
        """Whether guards or information flow apply to the call."""
        return self.guards is not None or self.flow is not None

    @cached_property
    def charge(self) -> int:
        """The amount to reserve for the call, in micro-dollars."""
        return self.cost.reserved

    @cached_property
    def rates(self) -> tuple[RateLimit, ...]:
        """The rates that count the call."""
        return self.payer.rates + self.payer.token_rates if self.size else self.payer.rates

    @cached_property
    def limited(self) -> bool:
        """Whether the call needs a reservation or a limit check."""
        return bool(self.budgets or self.loops or self.rates)
