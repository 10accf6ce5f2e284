"""What operators declare: who may call what, at what price. Checked whole, stored whole."""

from typing import Annotated

from pydantic import Field

from toolbus_common.declared.admins import Admin, Role
from toolbus_common.declared.basics import MICRO, Declared, Name, Pattern, Patterns
from toolbus_common.declared.levels import (
    Content,
    Customer,
    Group,
    Key,
    KeyTerms,
    Level,
    Team,
    User,
)
from toolbus_common.declared.money import Budget, Loop, Period, Price, Rate
from toolbus_common.declared.programs import Programs
from toolbus_common.declared.results import Results, ToolCache
from toolbus_common.declared.rules import POSTED, Rule, Webhook
from toolbus_common.declared.servers import Operations, Server, ToolView, Validation

__all__ = [
    "MICRO",
    "POSTED",
    "Admin",
    "Budget",
    "Content",
    "Customer",
    "Declaration",
    "Declared",
    "Group",
    "Key",
    "KeyTerms",
    "Level",
    "Loop",
    "Name",
    "Operations",
    "Pattern",
    "Patterns",
    "Period",
    "Price",
    "Programs",
    "Rate",
    "Results",
    "Role",
    "Rule",
    "Server",
    "Team",
    "ToolCache",
    "ToolView",
    "User",
    "Validation",
    "Webhook",
]


Dollars = Annotated[float, Field(ge=0, le=1_000_000)]


class Declaration(Declared):
    """A whole configuration, stored as one entry so that it is never half applied.

    `prices` are dollars per call, or a `Price`, by pattern. `labels` are words about tools that
    rules can ask for, by pattern.
    """

    servers: dict[Name, Server] = Field(default_factory=dict)
    customers: dict[Name, Customer] = Field(default_factory=dict)
    teams: dict[Name, Team] = Field(default_factory=dict)
    users: dict[Name, User] = Field(default_factory=dict)
    keys: dict[Name, Key] = Field(default_factory=dict)
    groups: dict[Name, Group] = Field(default_factory=dict)
    prices: dict[Pattern, Dollars | Price] = Field(default_factory=dict)
    labels: dict[Pattern, tuple[Name, ...]] = Field(default_factory=dict)
    rules: dict[Name, Rule] = Field(default_factory=dict)
    webhooks: dict[Name, Webhook] = Field(default_factory=dict)
    admins: dict[Name, Admin] = Field(default_factory=dict)
