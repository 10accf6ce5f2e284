"""The configuration of Toolbus: servers, keys, limits, prices, audit. Stored as one entry."""

from typing import Annotated

from pydantic import Field

from toolbus_common.config.access.admins import Admin, Role
from toolbus_common.config.access.agent_mode import AgentMode, Injection, InjectionLimits
from toolbus_common.config.access.anonymous import Anonymous
from toolbus_common.config.access.code_mode import Programs
from toolbus_common.config.access.identity_providers import (
    LOCAL,
    MACHINES,
    OWN_ISSUERS,
    Access,
    Issuer,
)
from toolbus_common.config.access.levels import (
    Content,
    Customer,
    Environment,
    Group,
    Key,
    KeyTerms,
    Level,
    Team,
    User,
)
from toolbus_common.config.access.limits import Budget, Loop, Period, Price, Rate
from toolbus_common.config.access.readers import Reader
from toolbus_common.config.access.rules import Rule, Webhook
from toolbus_common.config.audit.exports import Export, Leaving, Place, Sink
from toolbus_common.config.audit.retention import Audit, Checkpoints, Evidence, Witness
from toolbus_common.config.base import MICRO, ConfigModel, Name, Pattern, Patterns
from toolbus_common.config.flow import Flow, FlowLabels, Reads, Writes
from toolbus_common.config.guards.guard import Guard
from toolbus_common.config.models.providers import Alias, ModelPrice, ModelTarget, Provider
from toolbus_common.config.models.response_cache import ResponseCache, SemanticCache
from toolbus_common.config.plugins import Plugin
from toolbus_common.config.servers.endpoints import Operations
from toolbus_common.config.servers.oauth import OAuthClient, ServerOAuth
from toolbus_common.config.servers.results import Results, ToolCache
from toolbus_common.config.servers.sampling import Sampling
from toolbus_common.config.servers.server import Server, Validation
from toolbus_common.config.servers.tools import ToolView

__all__ = [
    "LOCAL",
    "MACHINES",
    "MICRO",
    "OWN_ISSUERS",
    "Access",
    "Admin",
    "AgentMode",
    "Alias",
    "Anonymous",
    "Audit",
    "Budget",
    "Checkpoints",
    "ConfigModel",
    "Configuration",
    "Content",
    "Customer",
    "Environment",
    "Evidence",
    "Export",
    "Flow",
    "FlowLabels",
    "Group",
    "Guard",
    "Injection",
    "InjectionLimits",
    "Issuer",
    "Key",
    "KeyTerms",
    "Leaving",
    "Level",
    "Loop",
    "ModelPrice",
    "ModelTarget",
    "Name",
    "OAuthClient",
    "Operations",
    "Pattern",
    "Patterns",
    "Period",
    "Place",
    "Plugin",
    "Price",
    "Programs",
    "Provider",
    "Rate",
    "Reader",
    "Reads",
    "ResponseCache",
    "Results",
    "Role",
    "Rule",
    "Sampling",
    "SemanticCache",
    "Server",
    "ServerOAuth",
    "Sink",
    "Team",
    "ToolCache",
    "ToolView",
    "User",
    "Validation",
    "Webhook",
    "Witness",
    "Writes",
]


Dollars = Annotated[float, Field(ge=0, le=1_000_000)]


class Configuration(ConfigModel):
    """A whole configuration. It is stored as one entry, so it is never applied in part.

    `prices` maps patterns of tools to dollars per call, or to a `Price`. `labels` maps patterns of
    tools to words for use in rules. `models` maps aliases to the models that they stand for, and
    `model_prices` maps patterns of `provider/model` to prices. `model_guards` maps such patterns to
    the guards of these models. `flow` applies to all keys, like the field of a level.
    """

    servers: dict[Name, Server] = Field(default_factory=dict)
    providers: dict[Name, Provider] = Field(default_factory=dict)
    models: dict[Alias, tuple[ModelTarget, ...]] = Field(default_factory=dict)
    customers: dict[Name, Customer] = Field(default_factory=dict)
    teams: dict[Name, Team] = Field(default_factory=dict)
    users: dict[Name, User] = Field(default_factory=dict)
    keys: dict[Name, Key] = Field(default_factory=dict)
    groups: dict[Name, Group] = Field(default_factory=dict)
    prices: dict[Pattern, Dollars | Price] = Field(default_factory=dict)
    model_prices: dict[Pattern, ModelPrice] = Field(default_factory=dict)
    labels: dict[Pattern, tuple[Name, ...]] = Field(default_factory=dict)
    guards: dict[Name, Guard] = Field(default_factory=dict)
    model_guards: dict[Pattern, tuple[Name, ...]] = Field(default_factory=dict)
    plugins: dict[Name, Plugin] = Field(default_factory=dict, max_length=64)
    flow: Flow = Flow(action="off")
    rules: dict[Name, Rule] = Field(default_factory=dict)
    webhooks: dict[Name, Webhook] = Field(default_factory=dict)
    admins: dict[Name, Admin] = Field(default_factory=dict)
    exports: dict[Name, Export] = Field(default_factory=dict)
    sinks: dict[Name, Sink] = Field(default_factory=dict)
    environments: dict[Name, Environment] = Field(default_factory=dict)
    audit: Audit = Audit()
    evidence: Evidence = Evidence()
    readers: dict[Name, Reader] = Field(default_factory=dict)
    issuers: dict[Name, Issuer] = Field(default_factory=dict)
    access: dict[Name, Access] = Field(default_factory=dict)
    anonymous: Anonymous = Anonymous()
    injection: InjectionLimits = InjectionLimits()
